"""The last-iterate heuristic for DP-SGD of arXiv 2410.06186: exact for linear losses, no guarantee else.

DP-SGD with sampling rate q, noise multiplier sigma and T steps, of which only the final model is seen. If
all losses and the regulariser are linear, it is exactly as private as telling

    P = Binomial(T, q) + N(0, sigma^2 T)   (the example is in)   from   Q = N(0, sigma^2 T)   (it is out).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from jaxtyping import Float

from surefoot._numerics.arguments import checked
from surefoot._numerics.checks import check_number
from surefoot._numerics.hockey_stick.mixture import ADD, REMOVE, Bounded
from surefoot.privacy._checks import (
    check_delta,
    check_noise,
    check_rate,
    check_steps,
    per_step,
    real,
)
from surefoot.privacy._curves.dominating_pairs import NoiselessPair
from surefoot.privacy._curves.envelope import envelope
from surefoot.privacy._curves.resolved import binomial_shift
from surefoot.privacy._curves.weighted import MIXED, UNREACHED, WeightedPair, weighted_pair
from surefoot.privacy.gaussian_mechanism import gaussian_pair
from surefoot.privacy.mechanism import Directed, Mechanism
from surefoot.privacy.result import Value

if TYPE_CHECKING:
    from surefoot.privacy.linear_weights import LinearWeights

Array = np.ndarray
Sampling = Literal["poisson", "shuffled"]
PerStep = float | Sequence[float] | Float[Array, " steps"]
SHUFFLED = (
    "shuffled or fixed-order epochs, zero-out adjacency; not comparable with a proven value "
    "that assumes Poisson sampling"
)
ENVELOPE = "largest heuristic over all shorter runs; no bound where some steps count for less"


def poisson_pair(noise_multiplier: float, sample_rate: float, steps: int) -> Directed:
    """The pair of equal steps: binomial, or one of the limits q = 0, T = 0, sigma = 0, q = 1."""
    sigma, q = noise_multiplier, sample_rate
    if q == 0 or steps == 0:
        return NoiselessPair(0.0)
    if sigma == 0:
        return NoiselessPair(-math.expm1(steps * math.log1p(-q)) if q < 1 else 1.0)
    if q == 1:
        return gaussian_pair(math.sqrt(steps) / sigma)
    return binomial_shift(steps, q, 1 / sigma / math.sqrt(steps))


@checked
class Heuristic(Mechanism):
    """The curve of the last-iterate heuristic; made by `last_iterate`.

    Attributes
    ----------
    pair
        Both hockey-stick divergences, by direction.
    noise_multiplier
        Noise standard deviation over clip norm: one number, or one per step.
    sample_rate
        The probability that an example is in a batch: one number, or one per step.
    steps
        Number of updates.
    note
        What a reader of its values has to know.
    plain
        Whether all steps are equal and Poisson-sampled: only then is there an envelope.
    """

    def __init__(
        self,
        pair: Directed,
        noise_multiplier: PerStep,
        sample_rate: PerStep,
        steps: int,
        *,
        plain: bool,
        note: str = "",
    ) -> None:
        if np.ndim(noise_multiplier) == 0:
            check_noise(noise_multiplier)
        if np.ndim(sample_rate) == 0:
            check_rate(sample_rate)
        check_steps(steps)
        super().__init__(pair, "heuristic", note)
        self.noise_multiplier, self.sample_rate, self.steps = noise_multiplier, sample_rate, steps
        self._plain = plain

    def _shown(self) -> str:
        sigma, q = (
            f"{given:g}" if np.ndim(given) == 0 else "one per step"
            for given in (self.noise_multiplier, self.sample_rate)
        )
        return f"Heuristic: sigma {sigma}, sample rate {q}, {self.steps} steps"

    def _value(self, quantity: str, remove: Bounded, add: Bounded) -> Value:
        value = super()._value(quantity, remove, add)
        if not isinstance(self.pair, WeightedPair) or self.pair.mixed:
            return value
        if value.upper - value.lower <= self.pair.wanted(value.upper, quantity == "delta"):
            return value
        return dataclasses.replace(value, note=UNREACHED)

    def envelope(self, delta: float, *, tolerance: float = 1e-4) -> Value:
        """Largest heuristic epsilon over runs of 1, ..., T steps, to `tolerance` (relative above 1).

        The heuristic is not monotone in T: a training that forgets its early steps leaks like a
        shorter one. Covers forgetting of all steps but some last ones [derived here]; it is no bound where
        early steps count for less, not nothing: pass `weights` for that.

        Raises
        ------
        ValueError
            For steps that differ, for shuffled sampling, or for a delta outside (0, 1).
        """
        delta = check_delta(delta)
        if not self._plain:
            raise ValueError(
                "envelope is defined for equal steps under Poisson sampling; "
                "with weights the heuristic already says what each step counts"
            )
        sigma, q = check_noise(self.noise_multiplier), check_rate(self.sample_rate)
        sides = [
            envelope(
                lambda t: poisson_pair(sigma, q, t), sigma, q, self.steps, delta, way, tolerance
            )
            for way in (REMOVE, ADD)
        ]
        value = self._value("epsilon", *sides)
        return dataclasses.replace(value, note=ENVELOPE)


@checked(leave=("sampling",))
def last_iterate(
    noise_multiplier: PerStep,
    sample_rate: PerStep,
    steps: int,
    *,
    weights: Sequence[float] | Float[Array, " steps"] | LinearWeights | None = None,
    sampling: Sampling = "poisson",
    tolerance: float = 1e-2,
) -> Heuristic:
    """The last-iterate heuristic of arXiv 2410.06186: what DP-SGD leaks if only the final model is seen.

    Exact for linear losses, a heuristic for all others; never a guarantee.

    Parameters
    ----------
    noise_multiplier
        sigma: noise standard deviation over clip norm; one number, or one per step.
    sample_rate
        q: probability that an example is in a batch; one number, or one per step.
    steps
        T: number of updates.
    weights
        How much each step's clipped gradient and noise move the final model: momentum, learning rate
        schedule, weight decay. One number per step, only ratios matter, or `LinearWeights`. The
        values then come with bounds from rounding the weights up and down to a grid.
    sampling
        "poisson", or "shuffled" for epochs in which each example is used exactly once: the number of
        epochs sample_rate * steps must then be whole.
    tolerance
        Wanted distance of the bounds where there are weights: relative for delta; absolute for
        epsilon up to 10, and growing with it from there on.

    Raises
    ------
    ValueError
        If an argument is outside its range, or the steps of a shuffled run differ.
    """
    steps = check_steps(steps)
    if sampling not in get_args(Sampling):
        raise ValueError(
            f"sampling must be one of {get_args(Sampling)}, got {sampling!r}; "
            "replace-one adjacency is not supported"
        )
    check_number("tolerance", tolerance, above=0)
    equal = weights is None and np.ndim(noise_multiplier) == 0 and np.ndim(sample_rate) == 0
    if equal:
        sigma, q = check_noise(noise_multiplier), check_rate(sample_rate)
        if sampling == "shuffled":
            pair = _shuffled(sigma, q, steps)
            return Heuristic(pair, sigma, q, steps, plain=False, note=SHUFFLED)
        return Heuristic(poisson_pair(sigma, q, steps), sigma, q, steps, plain=True)
    if sampling == "shuffled":
        raise ValueError(
            "sampling='shuffled' needs equal steps: no weights, one sigma and one rate"
        )
    given: Any = getattr(weights, "values", weights)
    a = _series("weights", 1.0 if given is None else given, steps)
    sigmas = _series("noise_multiplier", noise_multiplier, steps)
    rates = _series("sample_rate", sample_rate, steps)
    for sigma in np.unique(sigmas):
        check_noise(sigma)
    for rate in np.unique(rates):
        check_rate(rate)
    pair = weighted_pair(a, sigmas, rates, tolerance)
    note = MIXED if isinstance(pair, WeightedPair) and pair.mixed else ""
    return Heuristic(pair, noise_multiplier, sample_rate, steps, plain=False, note=note)


def _series(name: str, given: PerStep, steps: int) -> Float[Array, " steps"]:
    if np.ndim(given) == 0:
        given = np.full(steps, real(name, given))
    return per_step(name, given, steps)


def _shuffled(sigma: float, q: float, steps: int) -> Directed:
    epochs = q * steps
    if abs(epochs - round(epochs)) > 1e-9 * max(1.0, epochs):
        raise ValueError(
            "sampling='shuffled' needs a whole number of epochs sample_rate * steps, "
            f"got {q} * {steps} = {epochs}"
        )
    epochs = round(epochs)
    if epochs == 0:
        return gaussian_pair(0.0)
    return gaussian_pair(math.inf if sigma == 0 else epochs / (sigma * math.sqrt(steps)))
