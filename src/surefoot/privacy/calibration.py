"""The noise multiplier for a wanted epsilon, proven or heuristic; the proven epsilon always comes with it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

from scipy.optimize import brentq

from surefoot._numerics.arguments import checked
from surefoot._numerics.checks import check_choice, check_number
from surefoot.privacy._checks import check_delta, check_rate, check_steps
from surefoot.privacy._curves.proven import proven_epsilon
from surefoot.privacy._curves.step_loss import LEAST_NOISE
from surefoot.privacy.composition import standard
from surefoot.privacy.heuristic import last_iterate
from surefoot.privacy.result import HONESTY, Value

By = Literal["standard", "heuristic"]
LEAST, LARGEST = 1e-9, 1e8
# How far below the target the proven epsilon may stay: absolute, and of the target.
BELOW, BELOW_OF_TARGET = 5e-5, 1e-4
SEARCHES = 60


@checked(nan=True)
@dataclass(frozen=True, repr=False)
class Calibration:
    """A noise multiplier, with the proven epsilon it has and the heuristic one.

    Attributes
    ----------
    sigma
        The noise multiplier.
    proven_epsilon
        Guarantee at that sigma, always computed, whatever the target was.
    heuristic_epsilon
        The last-iterate heuristic at that sigma.
    by
        What the target was for.
    target_epsilon
        The epsilon that was wanted, of the kind that `by` names.
    delta
        The failure probability at which all three epsilons are.
    """

    sigma: float
    proven_epsilon: Value
    heuristic_epsilon: Value
    by: By
    target_epsilon: float
    delta: float

    def __repr__(self) -> str:
        lines = [
            f"proven epsilon     {self.proven_epsilon.value:.6g} at delta {self.delta:g} (guarantee)",
            f"heuristic epsilon  {self.heuristic_epsilon.value:.6g} ({HONESTY})",
            f"noise multiplier   {self.sigma:.6g}, calibrated to a {self.by} target "
            f"of {self.target_epsilon:g}",
        ]
        return "\n".join(lines)

    def to_dict(self) -> dict[str, float | str]:
        """The same for JSON, the proven value first."""
        return {
            "proven_epsilon": self.proven_epsilon.value,
            "heuristic_epsilon": self.heuristic_epsilon.value,
            "heuristic_note": HONESTY,
            "noise_multiplier": self.sigma,
            "by": self.by,
            "target_epsilon": self.target_epsilon,
            "delta": self.delta,
        }


@checked
def calibrate(
    target_epsilon: float, delta: float, sample_rate: float, steps: int, by: By = "standard"
) -> Calibration:
    """The smallest noise multiplier whose epsilon at delta is at most the target.

    For by="standard" the proven epsilon lies in [target - 1e-3, target]; for by="heuristic" the
    heuristic one within 1e-7 of it, and the proven one is larger. No noise multiplier below 1e-9 is
    returned, whatever the target.

    Parameters
    ----------
    target_epsilon
        The epsilon wanted, positive.
    delta
        Failure probability of the statement.
    sample_rate, steps
        q and T, as in `last_iterate`.
    by
        What has to meet the target: "standard", the guarantee, or "heuristic", which is none.

    Raises
    ------
    ValueError
        If an argument is outside its range, if nothing leaks whatever the noise (q = 0, T = 0, or delta at
        least the probability that the example is drawn at all), or if a noise multiplier above 1e8 is needed.
    """
    target = check_number("target_epsilon", target_epsilon, above=0)
    delta, q, steps = check_delta(delta), check_rate(sample_rate), check_steps(steps)
    check_choice("by", by, get_args(By))
    if q == 0 or steps == 0:
        name, value = ("sample_rate", sample_rate) if q == 0 else ("steps", steps)
        raise ValueError(f"{name} must be positive: nothing leaks without, got {value!r}")
    drawn = -math.expm1(steps * math.log1p(-q)) if q < 1 else 1.0
    if delta >= drawn:
        raise ValueError(
            f"delta must be below {drawn:.6g}, the probability 1 - (1 - q)^T that the example is drawn "
            f"at all, got {delta!r}: any noise would do, also none; pass one below 1 / (number of records)"
        )
    sigma = _heuristic_sigma(target, delta, q, steps)
    if by == "standard":
        sigma = _standard_sigma(target, delta, q, steps, sigma)
    return Calibration(
        sigma,
        standard(sigma, q, steps).epsilon(delta),
        last_iterate(sigma, q, steps).epsilon(delta),
        by,
        target,
        delta,
    )


def _root(excess: Callable[[float], float], low: float, tolerance: float) -> float:
    """Root in log sigma of a decreasing function; the bracket grows by factors of two from low."""
    low = min(max(low, LEAST), LARGEST)
    high = low
    while excess(high) > 0:
        if high >= LARGEST:
            raise ValueError(f"target_epsilon needs a noise multiplier above {LARGEST:g}")
        low, high = high, min(2 * high, LARGEST)
    while excess(low) <= 0:
        if low <= LEAST:
            return LEAST
        high, low = low, max(low / 2, LEAST)
    return math.exp(
        brentq(lambda x: excess(math.exp(x)), math.log(low), math.log(high), xtol=tolerance)
    )


def _heuristic_sigma(target: float, delta: float, q: float, steps: int) -> float:
    def excess(sigma: float) -> float:
        # An epsilon of infinity, at almost no noise, is as good as any other that is too large.
        return min(last_iterate(sigma, q, steps).epsilon(delta).value, 1e300) - target

    # What the full-batch simplification needs: the heuristic needs a little more.
    guess = max(q * math.sqrt(steps) / target, 1e-3)
    return _root(excess, guess, 1e-12)


def _standard_sigma(target: float, delta: float, q: float, steps: int, low: float) -> float:
    """Between the heuristic's noise, which is not enough unless it is all there is, and Renyi's, which is."""

    def epsilon(sigma: float, *, renyi: bool = False) -> float:
        return min(proven_epsilon(((sigma, q, steps),), delta, renyi=renyi).value, 1e300)

    def renyi_sigma(value: float) -> float:
        start = max(low, LEAST_NOISE)
        return _root(lambda s: epsilon(s, renyi=True) - value, start, 1e-4)

    below = min(BELOW, BELOW_OF_TARGET * target)
    # Where both values are the same curve the heuristic's noise is the answer, up to rounding.
    same = q == 1 or steps == 1
    resolved = not same and low >= LEAST_NOISE
    high, growth = (renyi_sigma(target) if resolved else low), (1e-12 if same else 1e-3)
    found = epsilon(high)
    while found > target:
        if high >= LARGEST:
            raise ValueError(f"target_epsilon needs a noise multiplier above {LARGEST:g}")
        low, high, growth = high, min(high * (1 + growth), LARGEST), 2 * growth
        found = epsilon(high)
    seen = [(math.log(high), found)]
    aim = target - below / 2
    best = high
    for _ in range(SEARCHES):
        if target - below <= found <= target or high <= low * (1 + 1e-12):
            break
        if len(seen) == 1 and resolved and found > 0:
            # Renyi's curve has nearly the same shape.
            guess = renyi_sigma(aim * epsilon(high, renyi=True) / found)
        else:
            guess = _secant(seen[-2:], aim)
        if not low < guess < high:
            guess = math.sqrt(low * high)
        found = epsilon(guess)
        seen.append((math.log(guess), found))
        low, high = (guess, high) if found > target else (low, guess)
        best = high
    return best


def _secant(points: list[tuple[float, float]], aim: float) -> float:
    """Where the line through two points (log sigma, epsilon) in logarithms has `aim`; NaN: nowhere."""
    if len(points) < 2 or min(value for _, value in points) <= 0:
        return math.nan
    (x, a), (y, b) = ((at, math.log(value)) for at, value in points)
    return math.exp(x + (y - x) * (math.log(aim) - a) / (b - a)) if a != b else math.nan
