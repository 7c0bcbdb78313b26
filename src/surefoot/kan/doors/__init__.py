"""Networks of splines under the names and calling conventions that people already use."""

from typing import Any


def __getattr__(name: str) -> Any:
    from surefoot import kan

    # What the doors open is exported by the package itself; its stub is the one list of it.
    if name in dir(kan):
        return getattr(kan, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
