"""The Mills ratio M(x) = Phi(-x) / phi(x), and its relative change over a shift, without cancellation.

Scipy has M as `erfcx`, but not its change: 1 - M(u) / M(u - a) from two values of `log_ndtr` has lost eight
digits at u = 0, a = 1e-8. At the optimal threshold every hockey-stick divergence of a mixture of shifted
Gaussians is a sum of positive terms in these changes (see `mixture`), where the textbook form subtracts
nearly equal numbers.
"""

from __future__ import annotations

import functools
import math
from decimal import Decimal, localcontext
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.special import erfcx, log_ndtr

Array = np.ndarray
EPS = float(np.finfo(float).eps)
SMALL = 0.02
ORDER = 9
NODES = 64
HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


def log_mills(x: Any) -> Any:
    """log M(x), for any real x: a number or an array.

    Scipy's two functions, each where it loses nothing: `log_ndtr` alone is 5e-9 off at x = 1e4, `erfcx`
    alone overflows at x = -38.
    """
    right = np.log(erfcx(np.maximum(x, -1.0) / math.sqrt(2))) + 0.5 * math.log(math.pi / 2)
    left = np.minimum(x, -1.0)
    return np.where(x > -1.0, right, log_ndtr(-left) + 0.5 * left * left + HALF_LOG_2PI)


def mills_slope(x: float) -> float:
    """-(d/dx) log M(x) = 1/M(x) - x > 0."""
    if x > 30:
        # 1/M(x) and x agree to all digits; the asymptotic series of their difference.
        r = 1 / x / x
        return (1 - r * (2 - r * (10 - 74 * r))) / x
    return math.exp(-float(log_mills(x))) - x


def _legendre(x: Decimal) -> tuple[Decimal, Decimal]:
    """P_64(x) and its derivative."""
    before, here = Decimal(1), x
    for n in range(1, NODES):
        before, here = here, ((2 * n + 1) * x * here - n * before) / (n + 1)
    return here, NODES * (x * here - before) / (x * x - 1)


@functools.cache
def _nodes() -> tuple[Float[Array, " n"], Float[Array, " n"]]:
    """Gauss-Legendre nodes and weights on [0, 1].

    Polished in decimals: the sums below are 2e-14 off with NumPy's own and 7e-14 with
    `scipy.special.roots_legendre`, 2e-15 with these.
    """
    nodes, weights = [], []
    with localcontext() as ctx:
        ctx.prec = 40
        for start in np.polynomial.legendre.leggauss(NODES)[0]:
            x = Decimal(float(start))
            for _ in range(2):
                value, slope = _legendre(x)
                x -= value / slope
            _, slope = _legendre(x)
            nodes.append(float((x + 1) / 2))
            weights.append(float(1 / ((1 - x * x) * slope * slope)))
    return np.array(nodes), np.array(weights)


def _moment_ratios(x: float) -> Float[Array, " n"]:
    """m_n / (n! m_0) for n = 1 ... 9, m_n = integral over t > 0 of t^n exp(-x t - t^2/2); M = m_0.

    (-1)^n m_n is the n-th derivative of M. All integrands are positive.
    """
    reach = math.sqrt(max(x, 0.0) ** 2 + 130)
    start = max(0.0, -x - 13)
    length = (130 / (reach + x)) if x > 0 else (-x - start) + 13
    nodes, weights = _nodes()
    t = start + length * nodes
    density = weights * np.exp(-((t + x) ** 2) / 2 if x < 0 else -t * (x + t / 2))
    mass = density.sum()
    powers = np.empty(ORDER)
    term = density / mass
    for n in range(1, ORDER + 1):
        term = term * t / n
        powers[n - 1] = term.sum()
    return powers


def _log_change(
    x: float, a: Float[Array, " k"], sign: int
) -> tuple[Float[Array, " k"], Float[Array, " k"]]:
    moved = x + sign * a
    here, there = float(log_mills(x)), log_mills(moved)
    change = sign * (here - there)
    slope = np.maximum(mills_slope(x), np.abs(np.exp(-np.maximum(there, -700.0)) - moved))
    uncertain = EPS * (4 + abs(here) + np.abs(there) + (abs(x) + a) * slope)
    with np.errstate(divide="ignore", over="ignore", under="ignore", invalid="ignore"):
        log_g = np.log(-np.expm1(-change))
        error = uncertain / np.expm1(np.maximum(change, SMALL / 2))
        small = a * mills_slope(x) < SMALL
        if small.any():
            ratios = _moment_ratios(x)
            near = a[small]
            series = np.zeros_like(near)
            for n in range(ORDER, 0, -1):
                series = near * (ratios[n - 1] - sign * series)
            log_g[small] = np.log(series if sign > 0 else series / (1 + series))
            error[small] = 16 * EPS
    return log_g, error


def log_rise(x: float, a: Float[Array, " k"]) -> tuple[Float[Array, " k"], Float[Array, " k"]]:
    """log(1 - M(x) / M(x - a)) for a >= 0, and a bound on its absolute error."""
    return _log_change(x, a, -1)


def log_drop(x: float, a: Float[Array, " k"]) -> tuple[Float[Array, " k"], Float[Array, " k"]]:
    """log(1 - M(x + a) / M(x)) for a >= 0, and a bound on its absolute error."""
    return _log_change(x, a, +1)
