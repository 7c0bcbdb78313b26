"""The one-run audit for a hypothesised trade-off curve (arXiv 2410.22235)."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import numpy as np
from scipy.special import ndtr, ndtri
from scipy.stats import binom

from surefoot.privacy.binomial import log_pmf

Array = np.ndarray
# x -> f(1 - x): least probability, in the other world, of an event with probability x in this one.
Blowup = Callable[[float], float]
TABLE = 2000


def gaussian_blowup(mu: float) -> Blowup:
    """Of the Gaussian mechanism: Phi(Phi^-1(x) - mu)."""

    def blowup(x: float) -> float:
        return float(ndtr(ndtri(x) - mu))

    return blowup


@functools.lru_cache(maxsize=128)
def last_iterate_blowup(scale: float, q: float, steps: int) -> Blowup:
    """Of the last-iterate family with noise multiplier 1 / scale, both directions, never above the exact one.

    Tabulated over thresholds; between two of them the lower value is taken.
    """
    if scale == 0:
        return lambda x: x
    # Weights left out only lower the table: it stays on the safe side.
    k = np.arange(binom.ppf(1e-15, steps, q), binom.isf(1e-15, steps, q) + 1)
    weights = np.exp(log_pmf(k, steps, q)) if q < 1 else np.ones(1)
    shifts = k * scale / math.sqrt(steps)
    u = np.linspace(-9.0, shifts[-1] + 9.0, TABLE)
    # P(Y > u) in the world without the example, P(Y <= u) in the one with it.
    fpr = ndtr(-u)
    fnr = ndtr(u[:, None] - shifts) @ weights
    sides = []
    for a, b in ((fpr, fnr), (fnr, fpr)):
        order = np.argsort(a)
        sides.append((a[order], np.minimum.accumulate(b[order])))

    def blowup(x: float) -> float:
        least = 1.0
        for a, b in sides:
            at = int(np.searchsorted(a, 1 - x, side="left"))
            least = min(least, float(b[at]) if at < len(a) else 0.0)
        return min(x, least)

    return blowup


def refuted(m: int, guesses: int, correct: int, alpha: float, blowup: Blowup) -> bool:
    """Whether so many right guesses have probability below alpha under the curve."""
    if correct == 0 or guesses == 0:
        return False
    x, h = alpha * correct / m, alpha * (guesses - correct) / m
    for i in range(correct - 1, -1, -1):
        larger = max(h, blowup(x))
        if larger == h:
            # Nothing moves any more.
            break
        x = min(1.0, x + (i / (guesses - i)) * (larger - h))
        h = larger
    return x + h > guesses / m
