"""For the reference pages: what a package exports is what its `__init__.pyi` imports from below it.

The packages look names up when they are first used, so nothing in an `__init__.py` itself says what is
public. griffe merges the stub into its package, but takes imports for private unless they are in `exports`.
"""

from typing import Any

import griffe


class Exports(griffe.Extension):
    """Marks those names as exported, in the package and in all below it."""

    def on_package(self, *, pkg: griffe.Module, **kwargs: Any) -> None:
        """Called by griffe once all modules are read."""
        for member in pkg.members.values():
            if isinstance(member, griffe.Module) and member.is_init_module:
                self.on_package(pkg=member)
        own = f"{pkg.path}."
        if pkg.exports is None:
            pkg.exports = [
                name
                for name, path in pkg.imports.items()
                if path.startswith(own) and not name.startswith("_")
            ] or None
