"""What is proven: standard composition of Poisson-subsampled Gaussian steps, all iterates published."""

from __future__ import annotations

import math
from itertools import groupby
from typing import Literal, get_args

import numpy as np
from jaxtyping import Float

from surefoot._numerics.arguments import checked
from surefoot._numerics.checks import check_choice, check_real
from surefoot.privacy._checks import (
    check_delta,
    check_epsilon,
    check_noise,
    check_rate,
    check_steps,
    per_step,
)
from surefoot.privacy._curves.proven import Bounds, Proven, proven_epsilon
from surefoot.privacy.facts import History
from surefoot.privacy.gaussian_mechanism import gaussian_pair
from surefoot.privacy.heuristic import PerStep, last_iterate
from surefoot.privacy.mechanism import Mechanism
from surefoot.privacy.result import Curve, Value

Array = np.ndarray
Method = Literal["pld", "rdp"]
ONE_NOISE = "noiseless steps: they hide nothing of an example that they draw"
EPOCHS = "plain Gaussian composition of E epochs, zero-out adjacency, all iterates published"
REFUSED = "no proven value for shuffled batches under this accountant"
CURVE_POINTS = 200


def as_history(noise_multiplier: PerStep, sample_rate: PerStep, steps: int) -> History:
    """Runs of equal steps (sigma, q, count), as Opacus writes them.

    Raises
    ------
    ValueError
        If an argument is outside its range, or a series has not one number per step.
    """
    steps = check_steps(steps)
    if np.ndim(noise_multiplier) == 0 and np.ndim(sample_rate) == 0:
        return ((check_noise(noise_multiplier), check_rate(sample_rate), steps),)
    sigmas, rates = (
        np.full(steps, given) if np.ndim(given) == 0 else per_step(name, given, steps)
        for name, given in (("noise_multiplier", noise_multiplier), ("sample_rate", sample_rate))
    )
    each = ((check_noise(s), check_rate(q)) for s, q in zip(sigmas, rates, strict=True))
    return tuple((s, q, len(list(same))) for (s, q), same in groupby(each))


@checked
class Standard(Mechanism):
    """The curve of standard composition, a guarantee; made by `standard`.

    Attributes
    ----------
    history
        Runs of equal steps (sigma, q, count).
    method
        "pld" or "rdp".
    lower
        A mechanism that leaks no more: the floor of its values.
    """

    def __init__(self, history: History, method: Method, lower: Mechanism) -> None:
        self.history, self.method, self._lower = history, method, lower
        used = tuple(h for h in history if h[1] > 0 and h[2] > 0)
        self._empty = not used
        self._noiseless = any(sigma == 0 for sigma, _, _ in used)
        self._bounds = Bounds(tuple(h for h in used if h[0] > 0))
        visible = [steps * math.log1p(-q) if q < 1 else -math.inf for s, q, steps in used if s == 0]
        # How probably a step without noise drew the example: then nothing hides it.
        self._visible = -math.expm1(sum(visible)) if visible else 0.0
        super().__init__(gaussian_pair(0.0), "guarantee", ONE_NOISE if self._noiseless else "")

    def epsilon(self, delta: float) -> Value:
        """Proven epsilon at delta, its note what proves it; `lower` is what linear losses leak already.

        Raises
        ------
        ValueError
            If delta is not strictly between 0 and 1.
        """
        delta = check_delta(delta)
        if self._empty:
            return self._bounded(0.0, Proven(0.0, ""), "epsilon")
        floor = self._lower.epsilon(delta).lower
        if self._noiseless:
            return self._bounded(floor, self._unhidden_epsilon(delta), "epsilon")
        proven = proven_epsilon(self._bounds.history, delta, renyi=self.method == "rdp")
        return self._bounded(floor, proven, "epsilon")

    def delta(self, eps: float) -> Value:
        """Proven delta at eps >= 0, its note what proves it.

        Raises
        ------
        ValueError
            If eps is negative or not finite.
        """
        eps = check_epsilon(eps)
        if self._empty:
            return self._bounded(0.0, Proven(0.0, ""), "delta")
        floor = self._lower.delta(eps).lower
        if self._noiseless:
            return self._bounded(floor, self._unhidden_delta(eps), "delta")
        proven = self._bounds.delta(eps, renyi=self.method == "rdp")
        return self._bounded(floor, proven, "delta")

    def _unhidden_delta(self, eps: float) -> Proven:
        hidden = self._bounds.delta(eps).value if self._bounds.steps else 0.0
        return Proven(min(1.0, (self._visible + hidden) * (1 + 1e-12)), ONE_NOISE)

    def _unhidden_epsilon(self, delta: float) -> Proven:
        """Only the steps that have noise can be below a delta, and only where the others leave room."""
        room = delta - self._visible * (1 + 1e-12)
        if not self._bounds.steps:
            return Proven(0.0 if delta >= self._visible else math.inf, ONE_NOISE)
        return self._bounds.epsilon(room) if room > 0 else Proven(math.inf, ONE_NOISE)

    def tradeoff(self, fpr: float | Float[Array, "*points"]) -> Curve:
        """A false negative rate below which no test can be: from the curve at several eps.

        At any eps, fnr >= 1 - delta - e^eps fpr and fnr >= e^-eps (1 - delta - fpr).
        """
        check_real("fpr", fpr)
        at: Array = np.asarray(fpr, dtype=float)
        for f in at.ravel():
            check_rate(f, "fpr")
        top = self.epsilon(1e-9).upper if not self._noiseless else 0.0
        best = np.zeros_like(at)
        eps = np.linspace(0.0, top, CURVE_POINTS if 0 < top < math.inf else 1)
        deltas = [self.delta(e).upper for e in eps] if len(eps) == 1 else self._bounds.profile(eps)
        for e, delta in zip(eps, deltas, strict=True):
            one = 1 - delta - np.exp(np.minimum(e, 700.0)) * at
            best = np.maximum(best, np.maximum(one, np.exp(-e) * (1 - delta - at)))
        return Curve(at, best, best, 1 - at, self.kind, "false negative rate", self.note)

    def _bounded(self, lower: float, proven: Proven, quantity: str) -> Value:
        # Both hold; where rounding carries the floor past the proven value, the larger is the safe one.
        value = max(lower, proven.value)
        note = "; ".join(filter(None, [f"by {proven.by}" if proven.by else "", self.note]))
        return Value(value, lower, value, "guarantee", quantity=quantity, note=note)


@checked
def standard(
    noise_multiplier: PerStep,
    sample_rate: PerStep,
    steps: int,
    *,
    method: Method = "pld",
) -> Standard:
    """Proven (epsilon, delta) of Poisson-subsampled DP-SGD, every intermediate model published.

    Add/remove-one adjacency; upper bounds that hold for any loss. The smallest of all that is proven:
    the discretised privacy loss, composed by a tilted transform on a grid fine enough to cost 0.02 %, with
    what rounding may do added; Renyi's bound at the best order; the total variation; the exact Gaussian form
    at q = 1 and the exact curve of a single step. The note of a value says which it was.

    Parameters
    ----------
    noise_multiplier, sample_rate, steps
        As in `last_iterate`: sigma and q, one number each or one per step, and T.
    method
        "pld", the smallest of all, or "rdp", Renyi's alone, for comparison.

    Raises
    ------
    ValueError
        If an argument is outside its range.
    """
    check_choice("method", method, get_args(Method))
    history = as_history(noise_multiplier, sample_rate, steps)
    return Standard(history, method, last_iterate(noise_multiplier, sample_rate, steps))


@checked
def epochs(noise_multiplier: float, number: int) -> Mechanism:
    """Each example in exactly E steps, batches fixed or shuffled without looking at the data: a guarantee.

    The Gaussian mechanism with mu = sqrt(E) / sigma, for zero-out adjacency (the example's gradient
    replaced by 0) with all iterates published [derived here].

    Raises
    ------
    ValueError
        If an argument is outside its range.
    """
    sigma, e = check_noise(noise_multiplier), check_steps(number, "number")
    mu = 0.0 if e == 0 else (math.inf if sigma == 0 else math.sqrt(e) / sigma)
    return Mechanism(gaussian_pair(mu), "guarantee", EPOCHS)
