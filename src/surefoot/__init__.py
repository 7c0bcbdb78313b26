"""Gradient descent with its guarantee attached.

A method is finished when it says what was promised (`Guarantee`), measures what happened (`Record`)
and puts the two side by side (`Certificate`). Importing this package imports neither torch nor
any extra: the names below are looked up when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from surefoot.certificate import Certificate, certify
    from surefoot.errors import SurefootError
    from surefoot.guarantee import Assumption, Guarantee, Verdict
    from surefoot.record import Record
    from surefoot.watching import Watch, watch

__version__ = "0.1.0"
__all__ = [
    "Assumption", "Certificate", "Guarantee", "Record", "SurefootError", "Verdict", "Watch",
    "certify", "watch",
]  # fmt: skip

_WHERE = {
    "Assumption": "guarantee",
    "Certificate": "certificate",
    "Guarantee": "guarantee",
    "Record": "record",
    "SurefootError": "errors",
    "Verdict": "guarantee",
    "Watch": "watching",
    "certify": "certificate",
    "watch": "watching",
}


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'surefoot' has no attribute {name!r}")
    return getattr(importlib.import_module(f"surefoot.{_WHERE[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
