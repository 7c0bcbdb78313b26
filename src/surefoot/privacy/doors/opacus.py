"""Opacus: its engine, an accountant of ours for it, and what it wrote down about a training."""

from __future__ import annotations

import importlib
from typing import Any

from surefoot.errors import MissingExtraError
from surefoot.privacy.doors.opacus_history import from_opacus, history_of, note_training

__all__ = ["from_opacus", "history_of", "note_training", "privacy_engine", "register_opacus"]


def _needed(module: str, part: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtraError(part, "opacus", "privacy") from error


def privacy_engine(accountant: str = "prv") -> Any:
    """Opacus' PrivacyEngine with this accountant.

    Raises
    ------
    MissingExtraError
        If Opacus is not installed.
    """
    return _needed("opacus", "a private training").PrivacyEngine(accountant=accountant)


def register_opacus() -> str:
    """Make PrivacyEngine(accountant="prv+last_iterate") known to Opacus, and return that name.

    Its `get_epsilon` is Opacus' own proven value; `heuristic(delta)` is the last-iterate heuristic. It also
    records what Opacus forgets: learning rates, clip norms, momentum, weight decay and batch sizes; `record`
    has them as facts, and `certificates(delta)` what they prove.

    Raises
    ------
    MissingExtraError
        If Opacus is not installed.
    """
    accountant = _needed("surefoot.privacy.doors.opacus_accountant", "register_opacus")
    return str(accountant.register())
