"""What a fit may spend: seconds of the wall clock, or iterations where the result must depend on the seed only."""

from __future__ import annotations

import time
from dataclasses import dataclass, field


@dataclass
class Budget:
    """Seconds or steps, and what was spent.

    Attributes
    ----------
    seconds
        Of the wall clock since this was made; None where steps are counted.
    steps
        Optimiser iterations; None where the clock is read.
    share
        Of the whole, how much may be spent until `over`; stages of a fit raise it in turn.
    """

    seconds: float | None
    steps: int | None
    share: float = 1.0
    spent_steps: int = 0
    started: float = field(default_factory=time.perf_counter)

    def spend(self, steps: int) -> None:
        """Count iterations."""
        self.spent_steps += steps

    def used(self) -> float:
        """The share that is spent."""
        if self.steps is not None:
            return self.spent_steps / max(self.steps, 1)
        assert self.seconds is not None
        return (time.perf_counter() - self.started) / self.seconds

    def over(self) -> bool:
        """Whether the share of this stage is spent."""
        return self.used() >= self.share
