"""The largest heuristic epsilon over all shorter runs, found with proof instead of by listing them.

For T1 <= T <= T2 the shift Binomial(T, q) is at most Binomial(T2, q) (stochastically, and larger shifts only
help to tell P from Q) and the noise at least sigma sqrt(T1) (less noise only helps), so the pair
Binomial(T2, q) + N(0, sigma^2 T1) bounds all of them: branch and bound over intervals of T [derived here].
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable

from surefoot._numerics.hockey_stick.mixture import Bounded
from surefoot.privacy._curves.resolved import binomial_shift
from surefoot.privacy.mechanism import Directed

BUDGET = 2000


def envelope(
    pair: Callable[[int], Directed],
    sigma: float,
    q: float,
    steps: int,
    delta: float,
    direction: int,
    tolerance: float,
) -> Bounded:
    """max over 1 <= T' <= steps of epsilon(delta) of pair(T'), in one direction."""
    if q in (0.0, 1.0) or sigma == 0 or steps <= 1:
        # Monotone in T: nothing to search.
        return pair(steps).epsilon(delta, direction)
    found: dict[int, Bounded] = {}

    def at(t: int) -> Bounded:
        if t not in found:
            found[t] = pair(t).epsilon(delta, direction)
        return found[t]

    def bound(first: int, last: int) -> float:
        if first == last:
            return at(first).upper
        spacing = 1 / sigma / math.sqrt(first)
        return binomial_shift(last, q, spacing).epsilon(delta, direction).upper

    best = max(at(1), at(steps), key=lambda b: b.value)
    heap = [(-bound(1, steps), 1, steps)]
    for _ in range(BUDGET):
        top, first, last = heap[0]
        if -top <= best.value + tolerance * max(1.0, best.value) or first == last:
            break
        heapq.heappop(heap)
        # Noise and shift scale with T: the geometric middle halves what the bound gives away.
        middle = min(max(math.isqrt(first * last), first), last - 1)
        for lo, hi in ((first, middle), (middle + 1, last)):
            best = max(best, at(lo), at(hi), key=lambda b: b.value)
            heapq.heappush(heap, (-bound(lo, hi), lo, hi))
    return Bounded(best.value, best.lower, max(best.upper, -heap[0][0]))
