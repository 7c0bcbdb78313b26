"""The right-hand sides of T1 to T4, numbers in and numbers out: all derived here, none is the paper's own.

r is the residual, L = |r|^2 / 2, J its Jacobian in the parameters, K = J J'. On a ball around the start
|J| <= beta and |J(a) - J(b)| <= Lambda |a - b|; lambda0 is the smallest eigenvalue of K at the start.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from scipy.optimize import brentq

from surefoot._numerics.arguments import checked
from surefoot._numerics.checks import check_choice, check_number

SHARE = 1 - 1 / math.sqrt(2)
"""What sqrt(lambda_min(K)) may lose of its start until lambda_min(K) is lambda0 / 2."""


def radius(r0: float, lambda0: float) -> float:
    """R = 2 sqrt2 |r0| / sqrt(lambda0): no run of T1 leaves this ball around its start."""
    return 0.0 if r0 == 0 else math.inf if lambda0 <= 0 else 2 * math.sqrt(2 * r0**2 / lambda0)


def threshold(r0: float, lambda0: float) -> float:
    """The largest Lambda for which T1 holds: .10355 lambda0 / |r0|."""
    return math.inf if r0 == 0 else SHARE * max(lambda0, 0.0) / (2 * math.sqrt(2) * r0)


def certified_step(beta: float, Lambda: float, r0: float) -> float:
    """T1's largest step, 1 / (beta^2 + Lambda |r0|): the inverse curvature of L where L has not risen."""
    curvature = beta**2 + (Lambda * r0 if r0 else 0.0)
    return math.inf if curvature == 0 else 1 / curvature


def contraction_factor(eta: float, lambda0: float) -> float:
    """T1: L falls at least by 1 - eta lambda0 / 2 a step."""
    return 1 - eta * lambda0 / 2


@checked(nan=True)
@dataclass(frozen=True)
class StochasticRate:
    """T3: what mini-batches drawn with replacement are promised, inside the ball of radius rho.

    Attributes
    ----------
    batch
        Rows drawn a step.
    n
        Rows there are.
    rho
        The radius; inside, lambda_min(K) >= lambda0 / 2.
    mu
        lambda0 / 2.
    curvature
        bL, of L in the ball.
    largest_row
        Gmax = max_i |J_i|^2 in the ball.
    step
        The largest step of the promise.
    p
        What the probability of ever leaving the ball is at most; at 1 or more nothing is known.
    """

    batch: int
    n: int
    rho: float
    mu: float
    curvature: float
    largest_row: float
    step: float
    p: float

    def factor(self, eta: float) -> float:
        """The promised factor a step of E[L_t; not left]: 1 - eta mu / 2."""
        return 1 - eta * self.mu / 2


def stochastic_radius(lambda0: float, hessian_bound: Callable[[float], float]) -> float:
    """rho with rho Lambda(rho) = (1 - 1/sqrt2) sqrt(lambda0), Lambda being that of the ball of radius rho.

    Parameters
    ----------
    lambda0
        The smallest eigenvalue at the start.
    hessian_bound
        Lambda as a function of the radius, not decreasing.
    """
    if lambda0 <= 0 or math.isinf(hessian_bound(0.0)):
        return 0.0
    target = SHARE * math.sqrt(lambda0)
    low, high = 0.0, 1.0
    while high * hessian_bound(high) < target:
        low, high = high, 1e3 * high
        if high > 1e150:
            return math.inf

    def excess(R: float) -> float:
        return R * hessian_bound(R) - target

    found = brentq(excess, low, high, xtol=1e-300, rtol=1e-13)
    return float(found) * (1 - 1e-12)


def stochastic_rate(
    lambda0: float,
    lambda_max: float,
    largest_diagonal: float,
    r0: float,
    n: int,
    batch: int,
    rho: float,
    Lambda: float,
) -> StochasticRate:
    """T3's constants.

    E|g|^2 <= |grad L|^2 + (n/B) Gmax 2L in the descent lemma, whose right side is never negative, so that
    steps that leave the ball may be dropped; p is Markov's inequality on the expected length of the path.

    Parameters
    ----------
    lambda0, lambda_max, largest_diagonal
        Of K at the start: smallest and largest eigenvalue, largest diagonal entry.
    r0
        |r| at the start.
    n, batch
        Rows, and rows drawn a step.
    rho, Lambda
        The ball, and Lambda on it.
    """
    mu, moved = lambda0 / 2, SHARE * math.sqrt(max(lambda0, 0.0))
    beta = math.sqrt(lambda_max) + moved
    row = (math.sqrt(largest_diagonal) + moved) ** 2
    # beta rho is 0 where the Jacobian is constant and rho infinite only if r cannot grow: it can.
    curvature = beta**2 + (Lambda * (r0 + beta * rho) if Lambda else 0.0)
    if lambda0 <= 0 or not math.isfinite(curvature):
        return StochasticRate(batch, n, rho, max(mu, 0.0), curvature, row, 0.0, math.inf)
    step = min(1 / curvature, mu * batch / (2 * curvature * n * row))
    p = 4 * r0 * math.sqrt(beta**2 + n * row / batch) / (mu * rho)
    return StochasticRate(batch, n, rho, mu, curvature, row, step, p)


@checked(nan=True)
@dataclass(frozen=True)
class PaperWidth:
    """How the width of the literature's theorems scales; its constants are not known here.

    Attributes
    ----------
    value
        The formula with every constant and logarithm of a hidden factor set to 1.
    formula
        What was computed.
    label
        How to read it.
    """

    value: float
    formula: str
    label: str = "order of magnitude"

    def __float__(self) -> float:
        return self.value

    def __str__(self) -> str:
        return f"m of the order of {self.value:.2g} ({self.label}: {self.formula} with constant 1)"


@checked
def paper_width(
    n: int,
    g: int,
    d: int,
    lambda0: float,
    which: Literal["both", "first"] = "both",
    delta: float = 0.01,
) -> PaperWidth:
    """The width that theorems of the literature ask for, as an order of magnitude with constant 1.

    Parameters
    ----------
    n, d
        Points and features.
    g
        Bases of an edge, C = G + k.
    lambda0
        The smallest eigenvalue of the tangent matrix.
    which
        "both": both layers trained, g^9 n^3 / lambda0^4, attributed to arXiv 2410.08041 by a later paper.
        "first": the first layer alone, max(d^2 g^6 n^2 / lambda0^2 log(n / delta), n), of that later one.
    delta
        The probability of failure, where the formula has it.

    Raises
    ------
    ValueError
        An argument out of range.
    """
    check_choice("which", which, ("both", "first"))
    for name, given in {"n": n, "g": g, "d": d}.items():
        check_number(name, given, least=1, whole=True)
    lambda0 = check_number("lambda0", lambda0, above=0)
    delta = check_number("delta", delta, above=0, below=1)
    if which == "both":
        return PaperWidth(g**9 * n**3 / lambda0**4, "g^9 n^3 / lambda0^4")
    value = max(d**2 * g**6 * n**2 / lambda0**2 * math.log(n / delta), float(n))
    return PaperWidth(value, "max(d^2 g^6 n^2 / lambda0^2 log(n / delta), n)")
