"""How many steps a target epsilon allows. The heuristic is not monotone in T, so the answer is a set."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import get_args

from surefoot._numerics.arguments import checked
from surefoot._numerics.checks import check_choice, check_number
from surefoot._numerics.hockey_stick.mixture import ADD, REMOVE
from surefoot.privacy._checks import check_delta, check_noise, check_rate, check_steps
from surefoot.privacy._curves.proven import proven_epsilon
from surefoot.privacy._curves.resolved import binomial_shift
from surefoot.privacy.calibration import By
from surefoot.privacy.heuristic import poisson_pair
from surefoot.privacy.mechanism import Directed
from surefoot.privacy.result import HONESTY


@checked(nan=True)
@dataclass(frozen=True, repr=False)
class Steps:
    """The numbers of steps whose epsilon is at most the target.

    Attributes
    ----------
    steps
        The largest T such that all runs of 1, ..., T steps keep the target; 0 if one step does not.
    intervals
        All T up to `limit` that keep it, as closed intervals.
    limit
        How far was searched.
    by
        "standard" (a guarantee) or "heuristic".
    """

    steps: int
    intervals: tuple[tuple[int, int], ...]
    limit: int
    by: By

    def __repr__(self) -> str:
        found = ", ".join(f"{a}-{b}" for a, b in self.intervals) or "none"
        words = "guarantee" if self.by == "standard" else HONESTY
        return f"steps {self.steps}, all that keep the target up to {self.limit}: {found} ({words})"


@checked
def max_steps(
    target_epsilon: float,
    delta: float,
    noise_multiplier: float,
    sample_rate: float,
    by: By = "standard",
    limit: int = 10**6,
) -> Steps:
    """The steps T <= limit whose epsilon at delta is at most the target.

    Parameters
    ----------
    target_epsilon
        The largest epsilon allowed.
    delta
        Failure probability of the statement.
    noise_multiplier, sample_rate
        sigma and q, as in `last_iterate`.
    by
        Which epsilon: "standard", the guarantee, or "heuristic", which is none.
    limit
        The largest T that is looked at.

    Raises
    ------
    ValueError
        If an argument is outside its range.
    """
    target = check_number("target_epsilon", target_epsilon, least=0)
    delta, limit = check_delta(delta), check_steps(limit, "limit")
    sigma, q = check_noise(noise_multiplier), check_rate(sample_rate)
    check_choice("by", by, get_args(By))
    if limit == 0:
        raise ValueError("limit must be at least 1, got 0")
    if q == 0:
        kept = [(1, limit)]
    elif by == "standard":
        last = _last_proven(target, delta, sigma, q, limit)
        kept = [(1, last)] if last else []
    else:
        kept = _kept(target, delta, sigma, q, limit)
    first = kept[0][1] if kept and kept[0][0] == 1 else 0
    return Steps(first, tuple(kept), limit, by)


def _last_proven(target: float, delta: float, sigma: float, q: float, limit: int) -> int:
    """Composition only loses privacy: narrowed first by Renyi's bound, which costs little, then by all."""
    if sigma == 0:
        if q == 1:
            return 0
        return min(limit, math.floor(math.log1p(-delta) / math.log1p(-q) * (1 + 1e-12)))

    def proven(t: int, *, renyi: bool = False) -> float:
        return proven_epsilon(((sigma, q, t),), delta, renyi=renyi).value

    low = _last(lambda t: proven(t, renyi=True), target, 0, limit)
    return low if low == limit else _last(proven, target, low, limit)


def _last(epsilon: Callable[[int], float], target: float, low: int, limit: int) -> int:
    """The largest T <= limit at which an increasing function is at most the target, given one or 0."""
    if epsilon(limit) <= target:
        return limit
    high, under, over = max(2 * low, 1), math.nan, math.inf
    while high < limit and (over := epsilon(high)) <= target:
        low, high, under = high, min(2 * high, limit), over
    high = min(high, limit)
    narrow = True
    while high - low > 1:
        middle = (low + high) // 2
        if narrow and low > 0 and 0 < under < over < math.inf:
            # Nearly a power of T: straight in the logarithms; every other time the middle.
            part = math.log(max(target, 1e-300) / under) / math.log(over / under)
            middle = round(low * (high / low) ** min(max(part, 0.0), 1.0))
            middle = min(max(middle, low + 1), high - 1)
        found = epsilon(middle)
        narrow = not narrow or (high - low > 64 and under != under)
        if found <= target:
            low, under = middle, found
        else:
            high, over = middle, found
    return low


def _kept(target: float, delta: float, sigma: float, q: float, limit: int) -> list[tuple[int, int]]:
    """All intervals, by halving those that bounds from their ends do not decide.

    Between T1 and T2 the heuristic lies between T1 draws under the noise of T2 and T2 draws under the
    noise of T1 (as in `envelope`) [derived here].
    """

    def within(first: int, last: int) -> bool | None:
        if first == last:
            return _larger(poisson_pair(sigma, q, first), delta)[0] <= target
        if sigma == 0:
            # The visible mass only grows with T: the ends decide.
            both = [within(t, t) for t in (first, last)]
            return both[0] if both[0] == both[1] else None
        few, many = 1 / (sigma * math.sqrt(first)), 1 / (sigma * math.sqrt(last))
        if _larger(_pair(last, q, few), delta)[1] <= target:
            return True
        return False if _larger(_pair(first, q, many), delta)[2] > target else None

    kept: list[tuple[int, int]] = []
    todo = [(1, limit)]
    while todo:
        first, last = todo.pop()
        inside = within(first, last)
        if inside is None:
            middle = min(max(math.isqrt(first * last), first), last - 1)
            todo += [(middle + 1, last), (first, middle)]
        elif inside and kept and kept[-1][1] == first - 1:
            kept[-1] = (kept[-1][0], last)
        elif inside:
            kept.append((first, last))
    return kept


def _pair(steps: int, q: float, spacing: float) -> Directed:
    if q == 1:
        return poisson_pair(1 / (spacing * math.sqrt(steps)), 1.0, steps)
    return binomial_shift(steps, q, spacing)


def _larger(pair: Directed, delta: float) -> tuple[float, float, float]:
    """Value, upper and lower bound of the larger direction."""
    sides = [pair.epsilon(delta, way) for way in (REMOVE, ADD)]
    return max(s.value for s in sides), max(s.upper for s in sides), max(s.lower for s in sides)
