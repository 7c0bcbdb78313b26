"""How long something runs: a number of steps, which repeats, or seconds, which do not."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from surefoot._numerics.checks import check_number

Clock = Callable[[], float]


class Budget:
    """Steps or seconds; iterate over it for the fraction of it that is spent, in [0, 1).

    Parameters
    ----------
    steps : int, optional
        How many iterations.
    seconds : float, optional
        When the last iteration may begin; at least one runs.
    clock : callable
        Seconds now; the wall clock by default.

    Attributes
    ----------
    done
        Iterations that ran.

    Raises
    ------
    ValueError
        Both or neither are given, or one that is not positive.
    """

    def __init__(
        self, steps: int | None, seconds: float | None, clock: Clock = time.perf_counter
    ) -> None:
        if (steps is None) == (seconds is None):
            raise ValueError(
                f"give either steps or seconds, got steps={steps!r} and seconds={seconds!r}"
            )
        self.steps = None if steps is None else check_number("steps", steps, least=1, whole=True)
        self.seconds = None if seconds is None else check_number("seconds", seconds, above=0)
        self.clock, self.done = clock, 0

    def __iter__(self) -> Iterator[float]:
        start = self.clock()
        while True:
            if self.steps is not None:
                spent = self.done / self.steps
            else:
                spent = (self.clock() - start) / (self.seconds or 1.0)
            if spent >= 1 and self.done:
                return
            yield min(spent, 1.0)
            self.done += 1
