"""When to measure, so that measuring costs no more of the training than was allowed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class Schedule:
    """Keeps the seconds spent on measures within a share of those of the training, by skipping.

    The first measure is always taken; each later one only where, with the cost of the dearest so far, all of
    them stay within the share.

    Parameters
    ----------
    share
        Of the seconds that the training itself takes, for instance 0.05.
    clock
        Seconds from anywhere, never falling.
    """

    share: float
    clock: Callable[[], float]
    spent: float = 0.0
    taken: int = 0
    skipped: int = 0
    _dearest: float = 0.0
    _began: float | None = field(default=None, init=False)

    def begin(self) -> None:
        """The training has begun, if it had not."""
        if self._began is None:
            self._began = self.clock()

    @property
    def overhead(self) -> float:
        """Seconds of measures over those of the training without them; 0 before it began."""
        if self._began is None:
            return 0.0
        training = self.clock() - self._began - self.spent
        return self.spent / training if training > 0 else (float("inf") if self.spent else 0.0)

    def due(self) -> bool:
        """Whether to measure now; a no is counted."""
        self.begin()
        assert self._began is not None
        training = self.clock() - self._began - self.spent
        if self.taken and self.spent + self._dearest > self.share * training:
            self.skipped += 1
            return False
        return True

    @contextmanager
    def measuring(self) -> Iterator[None]:
        """Count the seconds of a measure."""
        started = self.clock()
        yield
        seconds = self.clock() - started
        self.spent += seconds
        self.taken += 1
        self._dearest = max(self._dearest, seconds)
