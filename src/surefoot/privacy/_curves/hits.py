"""A bound that knows only how often the example was drawn: exact at q = 1, and tight where noise is tiny.

All iterates of T steps tell sum_S w_S N(1_S, sigma^2 I) from N(0, sigma^2 I), S the steps that drew the
example. The hockey-stick divergence is convex, so it is at most the mean over |S| = k, Binomial(T, q), of
that of the Gaussian mechanism with mu = sqrt(k) / sigma; in both directions, for the two divergences of
Gaussians agree [derived here].
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.special import log_ndtr

from surefoot._numerics.hockey_stick.mills import EPS
from surefoot._numerics.hockey_stick.mixture import log_sum
from surefoot.privacy._curves.binomial import log_pmf

Array = np.ndarray
MOST = 2**16


def gaussian_log_delta(eps: float, mu: Float[Array, " k"]) -> Float[Array, " k"]:
    """log(Phi(mu/2 - eps/mu) - e^eps Phi(-mu/2 - eps/mu)), never below it."""
    first, second = log_ndtr(mu / 2 - eps / mu), log_ndtr(-mu / 2 - eps / mu)
    seen = (first > -math.inf) & (second > -math.inf)
    a, b = np.where(seen, first, 0.0), np.where(seen, second, 0.0)
    drop = np.maximum(a - b - eps, 0.0)
    # Rounding of the two logarithms, which matters where they nearly agree.
    rounding = 8 * EPS * (2 + np.abs(a) + np.exp(-drop) * (eps + np.abs(b)))
    log_share = np.log(-np.expm1(-drop) + rounding)
    return np.asarray(first + np.where(seen, log_share, 0.0) + 8 * EPS)


@dataclass(frozen=True)
class Hits:
    """T steps of noise sigma, each drawing the example with probability q."""

    sigma: float
    q: float
    steps: int

    @functools.cached_property
    def _counts(self) -> tuple[Float[Array, " k"], Float[Array, " k"], float, float] | None:
        """Numbers of draws that matter, their log weights, and the logs of what was left out."""
        mean = self.steps * self.q
        reach = 40 * math.sqrt(mean * (1 - self.q)) + 800
        low, high = max(0, math.floor(mean - reach)), min(self.steps, math.ceil(mean + reach))
        if high - low > MOST:
            return None
        k: Array = np.arange(low, high + 1, dtype=float)
        if self.q == 1:
            k = np.array([float(self.steps)])
            return k, np.zeros(1), -math.inf, -math.inf
        log_w = log_pmf(k, self.steps, self.q)
        left, right = -math.inf, -math.inf
        if low > 0:
            left = float(log_w[0]) + math.log(low + 1)
        if high < self.steps:
            # The ratio of neighbours only falls: a geometric series.
            ratio = (self.steps - high) / (high + 1) * self.q / (1 - self.q)
            right = float(log_w[-1]) + math.log(ratio) - math.log1p(-ratio) if ratio < 1 else 0.0
        return k, log_w, left, right

    def log_delta(self, eps: float) -> float:
        """An upper bound on log delta(eps)."""
        if self._counts is None:
            return 0.0
        k, log_w, left, right = self._counts
        some = k > 0
        each = gaussian_log_delta(eps, np.sqrt(k[some]) / self.sigma)
        terms: Array = np.append(log_w[some] + each, right)
        if left > -math.inf:
            terms = np.append(terms, left + each[0])
        return min(log_sum(terms) + 1e-12, 0.0)
