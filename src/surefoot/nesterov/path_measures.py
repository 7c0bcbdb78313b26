"""What a run measures of the landscape on its way: aiming, growth, smoothness, non-convexity.

In the setting of arXiv 2410.08395; constants derived here. Each is a ratio of numbers that a run has
at hand, NaN where its denominator vanishes; all take scalars or arrays over the steps. With y_n the
point of the gradient g_n, x_{n+1} = y_n - eta g_n, v_n the velocity, d_n = y_n - p_n and p_n a
minimiser. None of them is an eigenvalue: the smallest one of the Hessian is 0 along a manifold of
minimisers and says nothing about mu.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

Path: TypeAlias = Float[np.ndarray, "*N"]


def aiming_constant(gap_y: ArrayLike, g_dot_d: ArrayLike, d_sq: ArrayLike) -> Path:
    """mu_aim = 2 (<g, d> - (f(y) - f*)) / |d|^2: the largest mu for which y aims at p."""
    return _ratio(2 * (np.asarray(g_dot_d) - np.asarray(gap_y)), d_sq)


def growth_constant(gap_y: ArrayLike, g_sq: ArrayLike) -> Path:
    """mu_PL = |g|^2 / (2 (f(y) - f*)): an upper limit of mu_aim, as aiming implies the PL inequality.

    The converse is false: PL alone gives no acceleration.
    """
    return _ratio(g_sq, 2 * np.asarray(gap_y))


def directional_smoothness(f_y: ArrayLike, f_next: ArrayLike, g_sq: ArrayLike, eta: float) -> Path:
    """L_needed = 2 (f(x+) - f(y) + eta |g|^2) / (eta^2 |g|^2), x+ = y - eta g.

    The smallest L for which the step decreased f as L-smoothness promises; one forward, exact.

    Raises ValueError for eta <= 0.
    """
    if not eta > 0:
        raise ValueError(f"eta must be > 0, got {eta}")
    g_sq = np.asarray(g_sq)
    return _ratio(2 * (np.asarray(f_next) - np.asarray(f_y) + eta * g_sq), eta**2 * g_sq)


def directional_nonconvexity(
    f_y: ArrayLike, f_x: ArrayLike, g_dot_v: ArrayLike, v_sq: ArrayLike, alpha: float
) -> Path:
    """eps = 2 (f(y) - f(x) - alpha <g, v>) / (alpha^2 |v|^2), y = x + alpha v.

    Minus the curvature of f along the momentum, on average over the segment from x to y: 0 or below
    where f is convex there. NAG tolerates up to sqrt(mu / eta).

    Raises ValueError for alpha <= 0.
    """
    if not alpha > 0:
        raise ValueError(f"alpha must be > 0, got {alpha}")
    deficit = np.asarray(f_y) - np.asarray(f_x) - alpha * np.asarray(g_dot_v)
    return _ratio(2 * deficit, alpha**2 * np.asarray(v_sq))


def certified_aiming(mu_aim: Float[np.ndarray, " N"]) -> Float[np.ndarray, " N"]:
    """Smallest mu_aim from each step to the last: what holds on the tail that starts there.

    NaN (a step at its anchor) asks nothing of mu and is passed over.
    """
    return np.fmin.accumulate(np.asarray(mu_aim, dtype=np.float64)[::-1])[::-1]


def _ratio(numerator: ArrayLike, denominator: ArrayLike) -> Path:
    top, bottom = np.broadcast_arrays(
        np.asarray(numerator, dtype=np.float64), np.asarray(denominator, dtype=np.float64)
    )
    found: Path = np.divide(top, bottom, out=np.full(bottom.shape, np.nan), where=bottom > 0)
    return found
