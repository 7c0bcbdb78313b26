"""What a fit may spend: seconds of the wall clock, or iterations where only the seed may matter."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field


def now() -> float:
    """Seconds of the wall clock."""
    return time.perf_counter()


@dataclass
class Budget:
    """Seconds or steps, and what was spent.

    Attributes
    ----------
    seconds
        Of `clock` since `started`; None where steps are counted.
    steps
        Optimiser iterations; None where the clock is read.
    share
        Of the whole, how much may be spent until `over`; the stages of a fit raise it in turn.
    clock
        Seconds now; the wall clock by default. A comparison takes that of the process, as the machine may be
        busy.
    """

    seconds: float | None
    steps: int | None
    share: float = 1.0
    spent: int = 0
    clock: Callable[[], float] = field(default_factory=lambda: now)
    started: float = -1.0

    def __post_init__(self) -> None:
        if self.started < 0:
            self.started = self.clock()

    @property
    def measure(self) -> str:
        """What is counted."""
        if self.seconds is None:
            return "steps"
        return "CPU seconds" if self.clock is time.process_time else "seconds of the wall clock"

    def spend(self, steps: int) -> None:
        """Count iterations."""
        self.spent += steps

    def used(self) -> float:
        """The share that is spent."""
        if self.steps is not None:
            return self.spent / self.steps if self.steps else 1.0
        assert self.seconds is not None
        return (self.clock() - self.started) / self.seconds

    def over(self) -> bool:
        """Whether the share of this stage is spent."""
        return self.used() >= self.share

    def left(self) -> int:
        """Steps left in this stage."""
        assert self.steps is not None
        return max(0, int(self.share * self.steps) - self.spent)

    def seconds_left(self) -> float:
        """Seconds left in this stage."""
        assert self.seconds is not None
        return max(0.0, (self.share - self.used()) * self.seconds)

    def part(self, steps: int) -> Budget:
        """For one of several jobs at once: the same clock, or so many steps of its own."""
        if self.steps is None:
            return Budget(self.seconds, None, self.share, 0, self.clock, self.started)
        return Budget(None, steps)
