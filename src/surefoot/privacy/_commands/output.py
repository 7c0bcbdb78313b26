"""What every subcommand prints: a text, or JSON."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from surefoot.privacy.audit import AuditResult


def show(result: AuditResult, as_json: bool) -> int:
    """Print an audit; its exit code."""
    print(to_json(result.to_dict()) if as_json else result)
    return result.exit_code


def to_json(value: Any) -> str:
    """Indented JSON, infinities as words."""
    import math

    def plain(x: Any) -> Any:
        if isinstance(x, dict):
            return {k: plain(v) for k, v in x.items()}
        if isinstance(x, (list, tuple)):
            return [plain(v) for v in x]
        # Infinity is no JSON.
        return str(x) if isinstance(x, float) and not math.isfinite(x) else x

    return json.dumps(plain(value), indent=1)
