"""The pairs with closed weights: binomial (Poisson sampling), and no noise at all."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np
from scipy.special import log_ndtr

from surefoot._numerics.hockey_stick.mills import mills_slope
from surefoot._numerics.hockey_stick.mixture import ADD, Bounded, Pair, Support
from surefoot.privacy._curves.binomial import log_pmf

REACH = 100.0


@dataclass(frozen=True)
class BinomialPair(Pair):
    """Binomial(steps, q) spacing + N(0, 1) and N(0, 1); spacing = 1 / (sigma sqrt(steps)), 0 < q < 1."""

    steps: int
    q: float
    spacing: float

    @property
    def mean(self) -> float:
        """T q spacing."""
        return self.steps * self.q * self.spacing

    @property
    def variance(self) -> float:
        """T q (1 - q) spacing^2."""
        return self.mean * self.spacing * (1 - self.q)

    @property
    def most(self) -> float:
        """T spacing."""
        return self.steps * self.spacing

    @functools.cached_property
    def floor(self) -> float:
        """T log(1 - q)."""
        return self.steps * math.log1p(-self.q)

    def bracket(self, target: float) -> tuple[float, float]:
        """Jensen above; below, k^2 >= k makes exp L at most (1 - q + q x)^T, x = exp(d u - d^2/2).

        Above, two single terms of the sum help where Tq is small.
        """
        d, q, steps = self.spacing, self.q, self.steps
        high = (target + (self.mean**2 + self.variance) / 2) / self.mean
        once = (target - math.log(q * steps) - (steps - 1) * math.log1p(-q)) / d + d / 2
        high = min(high, once)
        rate = target / steps
        if rate > 30:
            log_x = rate - math.log(q)
        else:
            x = 1 + math.expm1(rate) / q
            log_x = math.log(x) if x > 0 else -math.inf
            if x == math.inf:
                log_x = math.log(math.expm1(rate)) - math.log(q)
        low = log_x / d + d / 2
        return (low, max(low, high)) if low > -math.inf else super().bracket(target)

    def _mode(self, u: float, side: int) -> int:
        """Mode of w_k exp(a u - a^2/2) (side 0), w_k Phi(a - u) (1), w_k Phi(u - a) (-1), a = k d."""
        odds = math.log(self.q) - math.log1p(-self.q)
        d, lo, hi = self.spacing, 0, self.steps
        while lo < hi:
            k = (lo + hi) // 2
            x = u - d * (k + 0.5)
            gain = d * (x if side == 0 else side * (mills_slope(side * x) + side * x))
            if math.log((self.steps - k) / (k + 1)) + odds + gain > 0:
                lo = k + 1
            else:
                hi = k
        return lo

    def _reach(self, mode: int, side: int) -> int:
        """How far terms of that side reach to either side of their mode, from their curvature there."""
        curvature = 1 / (mode + 1) + 1 / (self.steps - mode + 1)
        curvature += self.spacing**2 if side == 0 else 0.0
        return math.ceil(1.15 * math.sqrt(2 * REACH / curvature)) + 36

    def _window(self, u: float, sides: tuple[int, ...]) -> Support:
        """Where the log-concave terms of every side have fallen by REACH below their largest."""
        modes = [self._mode(u, side) for side in sides]
        reaches = [self._reach(mode, side) for mode, side in zip(modes, sides, strict=True)]
        while True:
            lo = max(0, min(m - r for m, r in zip(modes, reaches, strict=True)))
            hi = min(self.steps, max(m + r for m, r in zip(modes, reaches, strict=True)))
            a = np.arange(lo, hi + 1, dtype=float)
            log_w = log_pmf(a, self.steps, self.q)
            a *= self.spacing
            inside = True
            for side, mode in zip(sides, modes, strict=True):
                ends = [0, mode - lo, -1]
                x = a[ends]
                terms = log_w[ends] + (x * (u - x / 2) if side == 0 else log_ndtr(side * (x - u)))
                inside &= lo == 0 or bool(terms[0] < terms[1] - REACH)
                inside &= hi == self.steps or bool(terms[2] < terms[1] - REACH)
            if inside:
                return Support(a, log_w, lo > 0, hi < self.steps)
            reaches = [r + r // 2 for r in reaches]

    def support(self, u: float, side: int = 0) -> Support:
        """The window of counts that matter at u."""
        return self._window(u, (side,))

    def supports(self, u: float) -> tuple[Support, Support]:
        """One window for both sums of the remove direction where they are near, to save time."""
        here, tail = self._mode(u, 0), self._mode(u, 1)
        if abs(tail - here) > self._reach(here, 0) + self._reach(tail, 1):
            return self.support(u), self.support(u, 1)
        both = self._window(u, (0, 1))
        return both, both


@dataclass(frozen=True)
class NoiselessPair:
    """sigma = 0: Q is a point, P leaves it with probability `visible`."""

    visible: float

    def delta(self, eps: float, direction: int) -> Bounded:
        """H(P, Q) = visible for every eps; H(Q, P) = max(0, 1 - e^eps (1 - visible))."""
        value = self.visible
        if direction == ADD and value < 1:
            value = abs(math.expm1(min(eps + math.log1p(-value), 0.0)))
        return Bounded(value, value, value)

    def epsilon(self, delta: float, direction: int) -> Bounded:
        """Infinite below the total variation, 0 from there on."""
        if delta >= self.visible:
            value = 0.0
        elif direction == ADD and self.visible < 1:
            value = math.log1p(-delta) - math.log1p(-self.visible)
        else:
            value = math.inf
        return Bounded(value, value, value)

    def false_negative_rate(self, false_positive_rate: float) -> float:
        """Accuse whatever left the point, and a fraction of the rest."""
        return (1 - false_positive_rate) * (1 - self.visible)
