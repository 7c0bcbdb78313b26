"""Pairs whose shifts lie so far apart, in units of the noise, that each can be told from all others.

With spacing d >= FAR, a_k = k d and W_k = P(K >= k), all that P has beyond u = a_k + z is
W_(k+1) + w_k Phi(-z), to e^-800. With L = log(P/Q),

    log w_k + a_k u - a_k^2 / 2 <= L(u) <= max_k (a_k u - a_k^2 / 2) <= u^2 / 2,

so epsilon and delta have bounds in closed form [derived here]. The sums of `mixture` have no digits left
where their terms are of the size u^2.
"""

from __future__ import annotations

import functools
import math
import sys
from dataclasses import dataclass

import numpy as np
from scipy.special import betainc, ndtr, ndtri

from surefoot._numerics.hockey_stick.gaussian import GaussianPair
from surefoot._numerics.hockey_stick.mixture import ADD, Bounded
from surefoot.privacy._curves.binomial import log_pmf
from surefoot.privacy._curves.dominating_pairs import BinomialPair, NoiselessPair

FAR = 1e10
# Noise beyond it has a probability of e^-800, below the smallest float64.
Z = 40.0
# Relative errors: of a binomial tail, with room, and of the square of a threshold.
TAIL_ERROR = 1e-9
ROUNDING = 1e-15
LARGEST = sys.float_info.max
SMALLEST = 5e-324


@dataclass(frozen=True)
class ResolvedPair:
    """Binomial(steps, q) spacing + N(0, 1) and N(0, 1), spacing >= FAR; steps = q = 1: one shift."""

    steps: int
    q: float
    spacing: float

    @functools.cached_property
    def floor(self) -> float:
        """T log(1 - q)."""
        return -math.inf if self.q == 1 else self.steps * math.log1p(-self.q)

    def _tail(self, k: int) -> float:
        """P(K >= k)."""
        if k <= 0 or k > self.steps:
            return float(k <= 0)
        return -math.expm1(self.floor) if k == 1 else float(betainc(k, self.steps - k + 1, self.q))

    def _beyond(self, u: float) -> float:
        """P(k d + noise > u): of the noise only that on the nearest shift matters."""
        k = round(min(u / self.spacing, self.steps + 1.0))
        above = self._tail(k + 1)
        return above + (self._tail(k) - above) * float(ndtr(k * self.spacing - u))

    def delta(self, eps: float, direction: int) -> Bounded:
        """The divergence at eps >= 0."""
        if direction == ADD and self.q < 1:
            return _around(-math.expm1(min(eps + self.floor, 0.0)), ROUNDING * (eps - self.floor))
        # Where the lines a_k u - a_k^2 / 2 reach eps first: next to k d = sqrt(2 eps).
        k = int(min(max(math.sqrt(2) * math.sqrt(eps) / self.spacing, 1.0), float(self.steps)))
        first, k = min(
            (j * self.spacing / 2 + eps / (j * self.spacing), j)
            for j in (k, min(k + 1, self.steps))
        )
        log_w = 0.0 if self.q == 1 else float(log_pmf(np.array([float(k)]), self.steps, self.q)[0])
        last = first - log_w / (k * self.spacing)
        low = self._beyond(last * (1 + ROUNDING)) * (1 - 1e-6)
        high = min(1.0, self._beyond(first * (1 - ROUNDING)) * (1 + TAIL_ERROR) + SMALLEST)
        return Bounded(min(max(self._beyond(last), low), high), low, high)

    def epsilon(self, delta: float, direction: int) -> Bounded:
        """The eps >= 0 at which the divergence is delta."""
        if direction == ADD and self.q < 1:
            value = max(0.0, math.log1p(-delta) - self.floor)
            return _around(value, ROUNDING * (1 - self.floor) if value > 0 else 0.0)
        if self._tail(1) <= delta:
            return Bounded(0.0, 0.0, 0.0)
        k, above_k = 1, self.steps + 1
        while above_k - k > 1:
            middle = (k + above_k) // 2
            k, above_k = (middle, above_k) if self._tail(middle) > delta else (k, middle)
        a, here, above = k * self.spacing, self._tail(k), self._tail(k + 1)
        down, up = 1 - TAIL_ERROR, 1 + TAIL_ERROR
        # Tails off by their error either way; where that leaves no quantile, the next shift has it.
        more = (delta * up - above * down) / max(here * down - above * up, SMALLEST)
        less = (delta * down - above * up) / (here * up - above * down)
        low = a + _quantile(more) if more < 1 else (k - 1) * self.spacing - Z
        high = a + _quantile(less) if less > 0 else (k + 1) * self.spacing + Z
        lower = _half_square(max(low, 0.0)) * (1 - ROUNDING) - 800
        value = _half_square(a + _quantile((delta - above) / (here - above)))
        return Bounded(value, min(max(lower, 0.0), LARGEST), _half_square(high) * (1 + ROUNDING))

    def false_negative_rate(self, false_positive_rate: float) -> float:
        """Smallest P(not accused): accuse whatever was shifted, and a fraction of the rest."""
        hidden = math.exp(self.floor) if false_positive_rate > 0 else 1.0
        return (1 - false_positive_rate) * hidden


def gaussian_shift(mu: float) -> GaussianPair | ResolvedPair | NoiselessPair:
    """N(mu, 1) and N(0, 1), for any mu in [0, inf]."""
    if mu == 0 or mu == math.inf:
        return NoiselessPair(0.0 if mu == 0 else 1.0)
    return GaussianPair(mu) if mu < FAR else ResolvedPair(1, 1.0, mu)


def binomial_shift(
    steps: int, q: float, spacing: float
) -> BinomialPair | ResolvedPair | NoiselessPair:
    """Binomial(steps, q) spacing + N(0, 1) and N(0, 1), 0 < q < 1, for any spacing in (0, inf]."""
    if spacing == math.inf:
        return NoiselessPair(-math.expm1(steps * math.log1p(-q)))
    return (BinomialPair if spacing < FAR else ResolvedPair)(steps, q, spacing)


def _quantile(p: float) -> float:
    """z with Phi(-z) = p, within [-Z, Z]."""
    return min(max(-float(ndtri(min(max(p, 0.0), 1.0))), -Z), Z)


def _half_square(x: float) -> float:
    return x / 2 * x


def _around(value: float, error: float) -> Bounded:
    return Bounded(value, max(0.0, value - error), value + error)
