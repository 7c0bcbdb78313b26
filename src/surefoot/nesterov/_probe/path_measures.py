"""What a run measures of the landscape on its way: aiming, growth, smoothness, non-convexity.

In the setting of arXiv 2410.08395; constants derived here. Each is a ratio of numbers that a run has
at hand, NaN where its denominator vanishes; all take floats, or arrays over the steps. With y_n the
point of the gradient g_n, x_{n+1} = y_n - eta g_n, v_n the velocity, d_n = y_n - p_n and p_n a
minimiser. None of them is an eigenvalue: the smallest one of the Hessian is 0 along a manifold of
minimisers and says nothing about mu.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from jaxtyping import Float

from surefoot._numerics.arguments import checked
from surefoot._numerics.checks import check_number, check_numbers

Values: TypeAlias = float | Float[np.ndarray, "*N"]


def aiming_constant(gap_y: Values, g_dot_d: Values, d_sq: Values) -> Values:
    """mu_aim = 2 (<g, d> - (f(y) - f*)) / |d|^2: the largest mu for which y aims at p."""
    return _ratio(2 * (g_dot_d - gap_y), d_sq)


@checked(nan=True)
def growth_constant(gap_y: Values, g_sq: Values) -> Values:
    """mu_PL = |g|^2 / (2 (f(y) - f*)): an upper limit of mu_aim, as aiming implies the PL inequality.

    The converse is false: PL alone gives no acceleration.
    """
    gap_y = check_numbers("gap_y", gap_y, finite=False)
    g_sq = check_numbers("g_sq", g_sq, finite=False)
    if gap_y.shape != g_sq.shape and gap_y.ndim and g_sq.ndim and gap_y.shape[-1] != g_sq.shape[-1]:
        raise ValueError(
            f"gap_y and g_sq must be as many, got shapes {gap_y.shape} and {g_sq.shape}"
        )
    return _ratio(g_sq, 2 * gap_y)


def directional_smoothness(f_y: Values, f_next: Values, g_sq: Values, eta: float) -> Values:
    """L_needed = 2 (f(x+) - f(y) + eta |g|^2) / (eta^2 |g|^2), x+ = y - eta g.

    The smallest L for which the step decreased f as L-smoothness promises; one forward, exact.

    Raises ValueError for eta <= 0.
    """
    check_number("eta", eta, above=0)
    return _ratio(2 * (f_next - f_y + eta * g_sq), eta**2 * g_sq)


def directional_nonconvexity(
    f_y: Values, f_x: Values, g_dot_v: Values, v_sq: Values, alpha: float
) -> Values:
    """eps = 2 (f(y) - f(x) - alpha <g, v>) / (alpha^2 |v|^2), y = x + alpha v.

    Minus the curvature of f along the momentum, on average over the segment from x to y: 0 or below
    where f is convex there. NAG tolerates up to sqrt(mu / eta).

    Raises ValueError for alpha <= 0.
    """
    check_number("alpha", alpha, above=0)
    deficit = f_y - f_x - alpha * g_dot_v
    return _ratio(2 * deficit, alpha**2 * v_sq)


@checked(nan=True)
def certified_aiming(mu_aim: Float[np.ndarray, " N"]) -> Float[np.ndarray, " N"]:
    """Smallest mu_aim from each step to the last: what holds on the tail that starts there.

    NaN (a step at its anchor) asks nothing of mu and is passed over.
    """
    mu_aim = check_numbers("mu_aim", mu_aim, ndim=1, finite=False)
    return np.fmin.accumulate(mu_aim[::-1])[::-1]


def _ratio(numerator: Values, denominator: Values) -> Values:
    top, bottom = np.broadcast_arrays(
        np.asarray(numerator, dtype=np.float64), np.asarray(denominator, dtype=np.float64)
    )
    found = np.full(bottom.shape, np.nan)
    np.divide(top, bottom, out=found, where=bottom > 0)
    return found if found.ndim else float(found)
