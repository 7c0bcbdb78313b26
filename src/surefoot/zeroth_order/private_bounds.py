"""Descent under clipping and noise: what a private forward-only run promises, with every constant.

Derived here. Given V, the direction Z of LOZO in its unit scale is Gaussian with covariance S_V (the identity
for a dense tensor, I x V V^T / r for a matrix), so that by Stein's lemma E[clip_C(<g, Z>) Z | V] = p S_V g
with p = erf(C / sqrt(2 g^T S_V g)): clipping the scalar weighs an example and never turns its gradient. Put
into the descent lemma of an L-smooth f: no condition on the step, no assumption on a variance.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from surefoot._numerics.arguments import checked
from surefoot._numerics.checks import check_number, check_numbers
from surefoot.zeroth_order._engine.checks import check_shapes


@dataclass(frozen=True)
class PrivateBound:
    """A bound on (1/T) sum_t E G_t^T S_V Gbar_t.

    Attributes
    ----------
    alpha
        The rate of this bound.
    value
        The sum of the terms.
    terms
        Delta_0 / (alpha T), and (L alpha / 2) times the mean of c^2 ||Z||^2.
    kind
        "log", with the squares that a run recorded, or "closed".
    """

    alpha: float
    value: float
    terms: tuple[float, float]
    kind: str


def second_moment(clip: float, sigma: float, q: float, population: int) -> float:
    """What E[c^2 | Z] is at most: C^2 (1 + (1 - q) / B + sigma^2 / B^2), B = q N."""
    divisor = q * population
    return clip**2 * (1 + (1 - q) / divisor + sigma**2 / divisor**2)


def weight_of(clip: float, squared: float) -> float:
    """p of an example with g^T S_V g: the share of its gradient that clipping leaves."""
    if math.isinf(clip) or squared <= 0:
        return 1.0
    return math.erf(clip / math.sqrt(2 * squared))


@checked
def lozo_private_bound(
    shapes: Sequence[tuple[int, int]],
    L: float,
    delta0: float,
    clip: float,
    sigma: float,
    q: float,
    population: int,
    T: int,
    alpha: float | None = None,
    *,
    dense: int = 0,
    log: Sequence[float] | Float[np.ndarray, " steps"] | None = None,
) -> PrivateBound:
    """Bound on (1/T) sum_t E G_t^T S_V Gbar_t for DP-LOZO in its unit scale, one direction [derived here].

    G is the gradient of f, the mean over N examples; Gbar = (1/N) sum p_i g_i that of the weighed examples.
    For every alpha > 0, nu and law of V:

    (1/T) sum E G^T S_V Gbar <= Delta_0 / (alpha T) + (L alpha / 2) (1/T) sum E[c^2 ||Z||^2]
    <= Delta_0 / (alpha T) + (L alpha / 2) d C^2 (1 + (1 - q) / B + sigma^2 / B^2),

    with d trained numbers and B = q N. Where nothing clips the left side is ||P_V G||^2. In the setting of
    arXiv 2410.07698; assumes f L-smooth, eps -> 0, no momentum, no weight decay. Delta_0 must be public (ln
    of the number of classes for a head of zeros), or have a private release of its own.

    Parameters
    ----------
    shapes, dense
        (m, n) of each matrix, and entries of dense tensors; d is the number of all of them.
    L, delta0
        Smoothness, and f(X_0) - inf f.
    clip, sigma, q, population, T
        C, the noise multiplier, the sampling rate, N, and the number of steps.
    alpha
        The learning rate; by default the best one, sqrt(2 Delta_0 / (L d C^2 k T)).
    log
        c^2 ||Z||^2 of each step, as a run recorded them: the bound in the middle, which is itself private.

    Raises
    ------
    ValueError
        If a number is out of range, or `log` has not T entries.
    """
    sizes = check_shapes(shapes)
    dense = check_number("dense", dense, least=0, whole=True)
    d = sum(m * n for m, n in sizes) + dense
    if not d:
        raise ValueError("shapes must hold at least one matrix, or dense be positive")
    L, delta0 = check_number("L", L, above=0), check_number("delta0", delta0, least=0)
    if alpha is None and not delta0:
        raise ValueError(
            "alpha must be given where delta0 is 0: the best one is then 0, no step at all"
        )
    clip, sigma = check_number("clip", clip, above=0), check_number("sigma", sigma, least=0)
    q = check_number("q", q, above=0, most=1)
    population = check_number("population", population, least=1, whole=True)
    T = check_number("T", T, least=1, whole=True)
    moment = d * second_moment(clip, sigma, q, population)
    if alpha is None:
        alpha = (2 * delta0 / (L * moment * T)) ** 0.5
    alpha = check_number("alpha", alpha, above=0)
    kind = "closed"
    if log is not None:
        squares = check_numbers("log", log, ndim=1, nonnegative=True)
        if len(squares) != T:
            raise ValueError(
                f"log must hold c^2 ||Z||^2 of each of the {T} steps, got {len(squares)}"
            )
        moment, kind = float(squares.mean()), "log"
    terms = (delta0 / (alpha * T), L * alpha / 2 * moment)
    return PrivateBound(alpha, sum(terms), terms, kind)
