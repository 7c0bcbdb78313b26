"""The one-run audit for a hypothesised trade-off curve (arXiv 2410.22235)."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import numpy as np
from jaxtyping import Float
from scipy.special import ndtr, ndtri
from scipy.stats import binom

from surefoot.privacy._curves.binomial import log_pmf

Array = np.ndarray
# x -> f(1 - x): least probability, in the other world, of an event with probability x in this one.
Blowup = Callable[[float], float]
TABLE = 2000


def gaussian_blowup(mu: float) -> Blowup:
    """Of the Gaussian mechanism: Phi(Phi^-1(x) - mu)."""

    def blowup(x: float) -> float:
        return float(ndtr(ndtri(x) - mu))

    return blowup


def draw_weights(q: float, steps: int) -> tuple[Float[Array, " k"], Float[Array, " k"]]:
    """How often an example is drawn, and the probabilities: all but 2e-15 of Binomial(T, q)."""
    k = np.arange(binom.ppf(1e-15, steps, q), binom.isf(1e-15, steps, q) + 1)
    return k, np.exp(log_pmf(k, steps, q)) if q < 1 else np.ones(1)


@functools.lru_cache(maxsize=128)
def last_iterate_blowup(scale: float, q: float, steps: int) -> Blowup:
    """Of the last-iterate family with noise multiplier 1 / scale, never above the exact one.

    Both directions at once: the lower convex hull of the curve and its mirror image, for the smaller of
    the two alone is no trade-off curve where they cross. Tabulated over thresholds; between two of
    them the lower value goes into the hull [derived here].
    """
    if scale == 0:
        return lambda x: x
    # Weights left out only lower the table: it stays on the safe side.
    k, weights = draw_weights(q, steps)
    shifts = k * scale / math.sqrt(steps)
    u = np.linspace(-9.0, shifts[-1] + 9.0, TABLE)
    # P(Y > u) in the world without the example, P(Y <= u) in the one with it.
    fpr = ndtr(-u)
    fnr = ndtr(u[:, None] - shifts) @ weights
    points = []
    for a, b in ((fpr, fnr), (fnr, fpr)):
        order = np.argsort(a)
        errors, least = a[order], np.minimum.accumulate(b[order])
        # Each threshold's first error with the next one's second: the lower corners of a staircase
        # that lies below the curve everywhere, and not only at the thresholds.
        points.append(np.stack([np.append(0.0, errors), np.append(least, 0.0)]))
    hull_x, hull_y = lower_hull(np.concatenate(points, axis=1))

    def blowup(x: float) -> float:
        return min(x, float(np.interp(1 - x, hull_x, hull_y)))

    return blowup


def lower_hull(points: Float[Array, "2 n"]) -> Float[Array, "2 k"]:
    """Corners of the largest convex function below these points (x, y), from left to right."""
    corners: list[tuple[float, float]] = []
    for x, y in points.T[np.lexsort(points[::-1])]:
        if corners and x == corners[-1][0]:
            continue
        while len(corners) > 1:
            (x0, y0), (x1, y1) = corners[-2:]
            if (x1 - x0) * (y - y0) - (y1 - y0) * (x - x0) > 0:
                break
            corners.pop()
        corners.append((float(x), float(y)))
    return np.array(corners).T


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
