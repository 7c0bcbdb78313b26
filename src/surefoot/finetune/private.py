"""What a private fine-tuning is told, and what it may not be combined with."""

from __future__ import annotations

import math
from dataclasses import dataclass

from surefoot.finetune.config import FORWARD_ONLY, FinetuneConfig
from surefoot.finetune.errors import FinetuneError
from surefoot.finetune.plan import Plan

RATES = {"lora": 1e-3, "lozo": 1e-5, "lozo-m": 1e-6, "mezo": 1e-5}
"""Where none is given: to try several would ask the training texts without noise."""
CLIP = 1.0
"""Of a gradient's norm. That of |c| differs by two decades between models, and is found on made-up texts."""


@dataclass(frozen=True)
class Mechanism:
    """A private training: sums over Poisson batches, clipped per text and noised.

    Attributes
    ----------
    epsilon, delta
        What the training texts are promised.
    sigma, clip, rate
        Noise multiplier, clip, and the probability of a text to be in a step.
    population
        How many texts there are to train on.
    """

    epsilon: float
    delta: float
    sigma: float
    clip: float
    rate: float
    population: int

    def line(self, steps: int) -> str:
        """For people."""
        return (
            f"private: epsilon {self.epsilon:.4g} at delta {self.delta:g} for each of the {self.population} "
            f"training texts: noise multiplier {self.sigma:.4g}, clip {self.clip:g}, {steps} steps, each "
            f"text in a step with probability {self.rate:.4g}; other parts of the file are promised nothing"
        )


def mechanism_for(config: FinetuneConfig, plan: Plan, rows: int) -> Mechanism:
    """The noise that a plan needs for the epsilon that is wanted.

    Raises
    ------
    FinetuneError
        No noise gives it.
    """
    from surefoot.errors import need

    with need("dp_accounting", extra="privacy", part="surefoot finetune --private"):
        from surefoot.privacy import calibrate

    assert config.private is not None
    assert config.delta is not None
    if config.delta >= 1 / rows:
        raise FinetuneError(
            f"--delta must be well below 1 / {rows} = {1 / rows:.3g}, one over the number of training texts, "
            f"got {config.delta:g}: a mechanism may then publish one of them"
        )
    rate = min(1.0, plan.batch / rows)
    try:
        found = calibrate(config.private, config.delta, rate, plan.steps)
    except ValueError as error:
        raise FinetuneError(f"--private {config.private:g} is not possible: {error}") from error
    clip = config.clip or CLIP
    # The noise is rounded up in its sixth digit, so that it may be read off and given again.
    sigma = math.ceil(found.sigma * 1e6) / 1e6
    return Mechanism(found.proven_epsilon.upper, config.delta, sigma, clip, rate, rows)


def check_together(config: FinetuneConfig, count: int) -> None:
    """Refuse what cannot be private, before anything is loaded.

    Parameters
    ----------
    config
        With or without `private`.
    count
        Processes.

    Raises
    ------
    FinetuneError
        Naming what does not go together.
    """
    if config.private is None:
        return
    able = ", ".join(RATES)
    if config.method is None:
        raise FinetuneError(f"--method must be given with --private: {able}")
    if config.method not in RATES:
        why = {
            "full": "per-example gradients of all weights are as many models as a batch has texts",
        }.get(config.method, "the merges of its blocks were made for plain gradients")
        raise FinetuneError(f"--method {config.method} cannot be private: {why}; take {able}")
    if count > 1:
        raise FinetuneError(
            f"--private needs one process, and there are {count}: each would add noise of its own"
        )
    if config.max_memory is not None:
        raise FinetuneError("--max-memory has no use with --private, whose method is given")
    if config.method not in FORWARD_ONLY and config.quantised:
        raise FinetuneError(f"--quantised needs lozo or lozo-m, got {config.method}")
