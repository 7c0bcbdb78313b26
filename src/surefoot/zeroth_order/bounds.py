"""What can be promised with every constant: moments, exact laws on a quadratic, and a bound on the gradient.

The theorem of arXiv 2410.07698 has a bound whose constants were not at hand; the explicit one here was
derived in its setting (smooth f, V with V^T V = n I, eps -> 0) and checked against runs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from surefoot._numerics.arguments import checked
from surefoot._numerics.checks import check_choice, check_number
from surefoot.zeroth_order._engine import checks

Shapes = Sequence[tuple[int, int]]


@checked
def lozo_moments(m: int, n: int, r: int, v_dist: str = "gaussian") -> float:
    """kappa: E||LGE||^2 = kappa ||G||^2 for one m x n matrix, as eps -> 0.

    Gaussian V: mn + 2 + 2(m + n + 1)/r; orthogonal V: mn + 2n/r [derived here]; MeZO, and ranks that
    are no saving: mn + 2. A low-rank estimate never has the smaller variance.

    Parameters
    ----------
    m, n, r
        Size of the matrix and the rank.
    v_dist
        "gaussian" or "orthogonal".

    Raises
    ------
    ValueError
        If a size or the rank is below 1.
    """
    m, n, r = (check_number(k, v, least=1, whole=True) for k, v in (("m", m), ("n", n), ("r", r)))
    check_choice("v_dist", v_dist, checks.V_DISTRIBUTIONS)
    if r >= min(m, n):
        return m * n + 2
    return m * n + 2 * n / r if v_dist == "orthogonal" else m * n + 2 + 2 * (m + n + 1) / r


@checked
def lozo_contraction(
    m: int, n: int, r: int, alpha: float, nu: int = 1, v_dist: str = "gaussian"
) -> float:
    """Factor of E||X - X*||^2 per period of nu steps on f = ||X - X*||^2 / 2 [derived here].

    Gaussian V, nu = 1: 1 - 2 alpha + alpha^2 kappa. Orthogonal V: (1 - r/n) + (r/n) q^nu with
    q = 1 - 2 alpha n/r + alpha^2 (n/r)^2 (m r + 2).

    Parameters
    ----------
    m, n, r
        Size of the matrix and the rank.
    alpha, nu
        The learning rate, and how many steps a V is kept.
    v_dist
        "gaussian" or "orthogonal".

    Raises
    ------
    ValueError
        For Gaussian V with nu > 1, which has no closed law, or sizes out of range.
    """
    nu = check_number("nu", nu, least=1, whole=True)
    alpha = check_number("alpha", alpha, least=0)
    kappa = lozo_moments(m, n, r, v_dist)
    if r >= min(m, n):
        return float((1 - 2 * alpha + alpha**2 * kappa) ** nu)
    if v_dist == "gaussian":
        if nu > 1:
            raise ValueError(
                f"nu must be 1 for Gaussian V, got {nu}: no closed law is known; take v_dist='orthogonal'"
            )
        return 1 - 2 * alpha + alpha**2 * kappa
    rho = n / r
    q = 1 - 2 * alpha * rho + (alpha * rho) ** 2 * (m * r + 2)
    return float(1 - 1 / rho + q**nu / rho)


class Constants(NamedTuple):
    """What the gradient theorem asks of a problem: smoothness, gradient variance, f(X_0) - f*."""

    L: float
    sigma2: float
    delta0: float


@dataclass(frozen=True)
class Bound:
    """A bound on the mean of E||grad f||^2 over the starts of K = T / nu periods.

    Attributes
    ----------
    alpha_max, alpha
        Largest admissible rate, and the one of this bound.
    value
        8 Delta_0 / (alpha T) + 8 L alpha C rho sigma^2.
    terms
        Its two terms.
    C, rho
        The constants: second moment over Q, and the largest n / r.
    """

    alpha_max: float
    alpha: float
    value: float
    terms: tuple[float, float]
    C: float
    rho: float


def _constants(shapes: Shapes, ranks: Sequence[int], dense: int, scale: str) -> tuple[float, float]:
    sizes = [m * n for m, n in shapes]
    rho = max([1.0, *(n / r for (_, n), r in zip(shapes, ranks, strict=True))])
    if scale == "unit":
        return sum(sizes) + dense + 2 * rho, rho
    largest = max([1, *ranks])
    weighted = sum(size / r for size, r in zip(sizes, ranks, strict=True))
    return largest * (weighted + dense) + 2 * rho, rho


def gradient_bound(
    shapes: Shapes,
    ranks: Sequence[int],
    nu: int,
    T: int,
    L: float,
    sigma2: float,
    delta0: float,
    alpha: float | None = None,
    *,
    dense: int = 0,
    scale: str = "paper",
) -> Bound:
    """The bound's number at any rate, admissible or not: whether it is one is for alpha_max to say.

    Parameters
    ----------
    shapes, ranks
        (m, n) of each matrix, and its rank; a matrix whose rank is no saving counts as dense.
    nu, T
        Length of a period and number of steps.
    L, sigma2, delta0
        Smoothness, variance of the minibatch gradient over all blocks, f(X_0) - f*.
    alpha
        The learning rate; by default the best one.
    dense
        Entries of dense tensors.
    scale
        "paper" or "unit".
    """
    low = [(s, k) for s, k in zip(shapes, ranks, strict=True) if 0 < k < min(s)]
    dense += sum(m * n for (m, n), k in zip(shapes, ranks, strict=True) if not 0 < k < min(m, n))
    if not low and not dense:
        raise ValueError("shapes must hold at least one matrix, or dense be positive")
    c, rho = _constants([s for s, _ in low], [k for _, k in low], dense, scale)
    alpha_max = min(1 / (L * c), 1 / (L * math.sqrt(rho**2 * nu**2 + 2 * nu * c * rho)))
    if alpha is None:
        alpha = alpha_max
        if sigma2 > 0:
            alpha = min(alpha, math.sqrt(delta0 / (L * c * rho * sigma2 * T)) or alpha_max)
    first = 8 * delta0 / (alpha * T) if alpha else math.inf
    terms = (first, 8 * L * alpha * c * rho * sigma2)
    return Bound(alpha_max, alpha, sum(terms), terms, c, rho)


@checked
def lozo_bound(
    shapes: Shapes,
    r: int | Sequence[int],
    nu: int,
    T: int,
    L: float,
    sigma2: float,
    delta0: float,
    alpha: float | None = None,
    *,
    dense: int = 0,
    scale: str = "paper",
) -> Bound:
    """Explicit-constant bound for LOZO with orthogonal V, no momentum, one direction [derived here].

    (1/K) sum_k E||grad f(X^{k nu})||^2 <= 8 Delta_0 / (alpha T) + 8 L alpha C rho sigma^2 for alpha <=
    alpha_max = min(1/(L C), 1/(L sqrt(rho^2 nu^2 + 2 nu C rho))). In the setting of arXiv 2410.07698;
    assumes f L-smooth, noise variance at most sigma2 over all blocks, eps -> 0, T a multiple of nu.

    Parameters
    ----------
    shapes, r
        (m, n) of each matrix, and its rank (one for all, or one each); a matrix whose rank is no saving
        counts as dense.
    nu, T
        Length of a period, and number of steps, whole periods.
    L, sigma2, delta0
        Smoothness, variance of the minibatch gradient over all blocks, f(X_0) - f*.
    alpha
        The learning rate; by default the best one.
    dense
        Entries of dense tensors.
    scale
        "paper" or "unit", as in `LOZO`.

    Raises
    ------
    ValueError
        If alpha exceeds alpha_max, T is no multiple of nu, or a number is out of range.
    """
    shapes = checks.check_shapes(shapes)
    given: Any = r
    several = np.iterable(given) and not isinstance(given, str | bytes)
    ranks = [
        check_number("r", k, least=1, whole=True)
        for k in (given if several else [given] * len(shapes))
    ]
    dense = check_number("dense", dense, least=0, whole=True)
    if len(ranks) != len(shapes):
        raise ValueError(f"r must be one rank or {len(shapes)}, one per shape, got {len(ranks)}")
    nu, T = check_number("nu", nu, least=1, whole=True), check_number("T", T, least=1, whole=True)
    if T % nu:
        raise ValueError(f"T must be a multiple of nu = {nu}, got {T}")
    L, delta0 = check_number("L", L, above=0), check_number("delta0", delta0, least=0)
    sigma2 = check_number("sigma2", sigma2, least=0)
    check_choice("scale", scale, checks.SCALES)
    if alpha is not None:
        check_number("alpha", alpha, above=0)
    found = gradient_bound(shapes, ranks, nu, T, L, sigma2, delta0, alpha, dense=dense, scale=scale)
    if found.alpha > found.alpha_max * (1 + 1e-12):
        raise ValueError(
            f"alpha must be at most alpha_max = {found.alpha_max:.6g}, got {found.alpha:.6g}"
        )
    return found
