"""Opacus: its engine, an accountant of ours for it, and what it wrote down about a training."""

from __future__ import annotations

from typing import Any

from surefoot._numerics.arguments import checked
from surefoot.errors import need
from surefoot.privacy.doors.opacus_history import from_opacus, history_of, note_training

__all__ = ["from_opacus", "history_of", "note_training", "privacy_engine", "register_opacus"]


def privacy_engine(accountant: str = "prv") -> Any:
    """Opacus' PrivacyEngine with this accountant.

    Raises
    ------
    MissingExtraError
        If Opacus is not installed.
    """
    with need("opacus", extra="privacy", part="a training by Opacus"):
        from opacus import PrivacyEngine
    return PrivacyEngine(accountant=accountant)


@checked
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
    with need("opacus", extra="privacy", part="register_opacus"):
        from surefoot.privacy.doors import opacus_accountant
    return opacus_accountant.register()
