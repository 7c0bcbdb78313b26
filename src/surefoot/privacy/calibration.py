"""The noise multiplier for a wanted epsilon, proven or heuristic; the proven epsilon always comes with it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

from scipy.optimize import brentq

from surefoot._numerics.checks import check_choice, check_number
from surefoot.privacy._checks import check_delta, check_rate, check_steps
from surefoot.privacy.composition import standard
from surefoot.privacy.doors.dp_accounting import account
from surefoot.privacy.heuristic import last_iterate
from surefoot.privacy.result import HONESTY, Value

By = Literal["standard", "heuristic"]
LARGEST = 1e8
BELOW = 2e-5


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


def calibrate(
    target_epsilon: float, delta: float, sample_rate: float, steps: int, by: By = "standard"
) -> Calibration:
    """The smallest noise multiplier whose epsilon at delta is at most the target.

    For by="standard" the proven epsilon lies in [target - 1e-3, target]; for by="heuristic" the
    heuristic one within 1e-7 of it, and the proven one is larger.

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
        If an argument is outside its range, or no training is needed at all (q = 0 or T = 0).
    """
    target = check_number("target_epsilon", target_epsilon, above=0)
    delta, q, steps = check_delta(delta), check_rate(sample_rate), check_steps(steps)
    check_choice("by", by, get_args(By))
    if q == 0 or steps == 0:
        name, value = ("sample_rate", sample_rate) if q == 0 else ("steps", steps)
        raise ValueError(f"{name} must be positive: nothing leaks without, got {value!r}")
    sigma = _heuristic_sigma(target, delta, q, steps)
    if by == "standard":
        sigma = _standard_sigma(target, delta, q, steps, max(sigma, 1e-3))
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
    high = low
    while excess(high) > 0:
        low, high = high, 2 * high
        if high > LARGEST:
            raise ValueError(f"target_epsilon needs a noise multiplier above {LARGEST:g}")
    while excess(low) <= 0 and low > 1e-9:
        high, low = low, low / 2
    if low <= 1e-9:
        return low
    return math.exp(
        brentq(lambda x: excess(math.exp(x)), math.log(low), math.log(high), xtol=tolerance)
    )


def _heuristic_sigma(target: float, delta: float, q: float, steps: int) -> float:
    def excess(sigma: float) -> float:
        return last_iterate(sigma, q, steps).epsilon(delta).value - target

    # What the full-batch simplification needs: the heuristic needs a little more.
    guess = max(q * math.sqrt(steps) / target, 1e-3)
    return _root(excess, guess, 1e-12)


def _standard_sigma(target: float, delta: float, q: float, steps: int, low: float) -> float:
    def excess(sigma: float, method: Literal["pld", "rdp"]) -> float:
        return account(((sigma, q, steps),), method).epsilon(delta) - target

    # Renyi accounting proves less, so its sigma is enough; the heuristic's is not.
    high = _root(lambda s: excess(s, "rdp"), low, 1e-3) * 1.001
    if excess(low, "pld") <= 0:
        # The heuristic already needs as much: nothing lies between the two.
        return low if excess(low, "pld") <= 0 else high
    ends = {math.log(low): excess(low, "pld"), math.log(high): excess(high, "pld")}

    def aim(x: float) -> float:
        # Aim below the target by more than the grid's own jitter, so that the answer keeps it.
        if x not in ends:
            ends[x] = excess(math.exp(x), "pld")
        return ends[x] + min(BELOW, target / 100)

    brentq(aim, math.log(low), math.log(high), xtol=1e-9)
    return math.exp(min(at for at, over in ends.items() if over <= 0))
