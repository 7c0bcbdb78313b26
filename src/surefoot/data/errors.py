"""What can go wrong on the way to a data set, each in one sentence."""

from __future__ import annotations

from collections.abc import Iterable

from surefoot.errors import SurefootError, UnknownNameError


class DataError(SurefootError, RuntimeError):
    """A data set cannot be had: no network, a full disk, a file that is not the pinned one."""


class UnknownDataError(UnknownNameError, ValueError):
    """A name that is not in the catalogue; the message lists the ones that are."""

    def __init__(self, given: str, known: Iterable[str]) -> None:
        super().__init__("data set", given, known)
