"""What is about to be trained: the method with all its numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass

from surefoot.finetune.config import CHAINED, FORWARD_ONLY, FinetuneConfig

PASSES, PASSES_FORWARD = 10, 60
LEAST_STEPS = 100
BLOCKS = 10
# LOZO's periods, and the momentum of its momentum form.
PERIOD, MOMENTUM = 50, 0.9
RANK, RANK_FORWARD = 8, 2


@dataclass(frozen=True)
class Plan:
    """A training.

    Attributes
    ----------
    method
        By its name on the command line.
    steps, batch
        How many, and the texts in each.
    seed
        Of all that is drawn.
    rank
        Of directions or adapters.
    quantised
        Whether the base stays in its blocks.
    every
        Steps between two looks at the validation texts; 0: none.
    constant
        Whether the rate stays as it is, whatever the method.
    """

    method: str
    steps: int
    batch: int
    seed: int
    rank: int
    quantised: bool
    every: int
    constant: bool = False

    @property
    def forward_only(self) -> bool:
        """Whether there are no gradients."""
        return self.method in FORWARD_ONLY

    @property
    def chained(self) -> bool:
        """Whether there are blocks."""
        return self.method in CHAINED

    @property
    def steps_per_block(self) -> int:
        """Steps of a block."""
        return math.ceil(self.steps / BLOCKS)

    @property
    def schedule(self) -> str:
        """Of the learning rate: what is promised of a method, is promised at a constant rate."""
        return "constant" if self.constant or self.forward_only or self.chained else "linear"


def plan_for(config: FinetuneConfig, method: str, rows: int, *, quantised: bool) -> Plan:
    """The plan of a method for so many training texts."""
    forward = method in FORWARD_ONLY
    passes = PASSES_FORWARD if forward else PASSES
    steps = config.steps or max(LEAST_STEPS, math.ceil(passes * rows / config.batch))
    rank = config.rank or (RANK_FORWARD if forward else RANK)
    every = max(1, math.ceil(steps / config.looks))
    return Plan(method, steps, min(config.batch, rows), config.seed, rank, quantised, every)
