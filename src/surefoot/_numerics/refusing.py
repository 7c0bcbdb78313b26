"""An argument is refused at once, or, where a command line gathers its faults, together with the others."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from surefoot.errors import ArgumentError

_GATHERED: ContextVar[list[ArgumentError] | None] = ContextVar("_GATHERED", default=None)


def refuse(error: ArgumentError) -> None:
    """Raise it, or keep it for whoever gathers; the caller then goes on with what was given.

    Raises
    ------
    ArgumentError
        Nobody gathers.
    """
    faults = _GATHERED.get()
    if faults is None:
        raise error
    faults.append(error)


@contextmanager
def gathered() -> Iterator[list[ArgumentError]]:
    """Inside of this, faults of arguments go into a list."""
    faults: list[ArgumentError] = []
    before = _GATHERED.set(faults)
    try:
        yield faults
    finally:
        _GATHERED.reset(before)
