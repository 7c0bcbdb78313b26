"""Student's limits of a mean, with Johnson's correction for skewness: fair for light tails alone."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float
from scipy.special import stdtrit

AGREE = 1e-9
WINDOWS = (2, 4, 8)
MANY_STEPS = 16


def limit(y: Float[np.ndarray, "n *steps"], level: float, side: int) -> Float[np.ndarray, "*steps"]:
    """One-sided confidence limit of the mean over axis 0, at error probability `level`.

    Student's limit, lengthened (never shortened) by Johnson's skewness correction:
    m + side sd (z + g/(6n) + g z^2/3) with z = t_{n-1}(1 - level)/sqrt(n) and g the skewness on
    the side in question, or 0. `side` is +1 for the upper and -1 for the lower limit.
    Source: Johnson (1978), Modified t tests and confidence intervals for asymmetrical populations.
    """
    n = y.shape[0]
    m, scale, sd, third = _moments(y)
    skew = np.maximum(0.0, side * third)
    z = stdtrit(n - 1, 1 - level) / np.sqrt(n)
    return np.asarray(m + side * scale * sd * (z + skew / (6 * n) + skew * z**2 / 3))


def skewness(y: Float[np.ndarray, "n *steps"]) -> Float[np.ndarray, "*steps"]:
    """The mean cubed deviation over the cubed standard deviation (that with n - 1)."""
    return _moments(y)[3]


def _moments(y: Float[np.ndarray, "n *steps"]) -> tuple[Float[np.ndarray, "*steps"], ...]:
    """Mean, scale, standard deviation in units of the scale, skewness."""
    m = y.mean(axis=0)
    deviation = y - m
    # In units of the largest deviation no power of it overflows: diverged runs reach 1e200.
    scale = np.abs(deviation).max(axis=0)
    unit = deviation / np.where(scale > 0, scale, 1.0)
    square = unit * unit
    sd = np.sqrt(square.sum(axis=0) / (y.shape[0] - 1))
    third = (square * unit).mean(axis=0) / np.where(sd > 0, sd, 1.0) ** 3
    return np.asarray(m), np.asarray(scale), np.asarray(sd), np.asarray(third)


def agree(x: Float[np.ndarray, "n *steps"]) -> Bool[np.ndarray, "*steps"]:
    """Where all seeds have one value, up to rounding."""
    # Relative to the values: runs far below a loose bound differ by less than 1e-9 of the bound.
    width = x.max(axis=0) - x.min(axis=0)
    return np.asarray(width <= AGREE * np.abs(x).max(axis=0))


def pooled(x: Float[np.ndarray, "n steps"]) -> list[tuple[Float[np.ndarray, "n k"], float]]:
    """The families of tests and the share of alpha that each single test in them gets.

    A window mean over the steps is a fair test because E x <= 1 at every step bounds it, and it is where
    correlated steps get their power.
    """
    steps = x.shape[1]
    if steps < MANY_STEPS:
        return [(x, 1.0 / steps)]
    windows = [part.mean(axis=1) for k in WINDOWS for part in np.array_split(x, k, axis=1)]
    return [
        (x.mean(axis=1, keepdims=True), 1 / 2),
        (np.stack(windows, axis=1), 1 / (4 * len(windows))),
        (x, 1 / (4 * steps)),
    ]


def exceeds(
    x: Float[np.ndarray, "n steps"], level: float, side: int, tolerance: float, skewed: float
) -> bool:
    """Whether some mean lies beyond 1 on `side` (+1: above), for a law without rare or heavy values there.

    A sample whose skewness away from `side` exceeds `skewed` shows nothing.
    """
    for y, share in pooled(x):
        varied = ~agree(y)
        y = y[:, varied]
        beyond = side * (limit(y, level * share, -side) - 1.0) > tolerance
        if (beyond & (-side * skewness(y) <= skewed)).any():
            return True
    return False
