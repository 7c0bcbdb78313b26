"""The explicit-constant bound as a core guarantee: what was promised of the mean squared gradient."""

from __future__ import annotations

import numpy as np

from surefoot.guarantee import Assumption, Guarantee
from surefoot.record import Record
from surefoot.zeroth_order.bounds import Bound, lozo_contraction

LATEX = (
    r"\frac1K\sum_{k<K}\mathbb{E}\|\nabla f(X^{k\nu})\|^2"
    r" \le \frac{8\Delta_0}{\alpha T} + 8L\alpha C\rho\sigma^2"
)


def gradient_guarantee(
    quantity: str,
    bound: Bound,
    *,
    v_dist: str = "orthogonal",
    momentum: float = 0.0,
    how: str = "closed form",
    fd_error: float | None = None,
    trivial: float | None = None,
    name: str | None = None,
) -> Guarantee:
    """(1/K) sum E||grad f||^2 over period starts is at most the bound, in expectation over directions.

    Parameters
    ----------
    quantity
        The record column: one number a seed, the mean over the period starts of that run.
    bound
        What `lozo_bound` returned for this run.
    v_dist, momentum, fd_error
        Of the run: the theorem needs orthogonal V, no momentum, and eps small.
    trivial
        What holds without the theorem, for instance 2 L Delta_0 >= ||grad f(X_0)||^2.
    how
        How L, sigma^2 and Delta_0 were found.
    """
    assumptions = [
        Assumption(
            "short steps",
            "alpha <= alpha_max",
            bound.alpha / bound.alpha_max,
            bound.alpha <= bound.alpha_max * (1 + 1e-12),
            f"alpha / alpha_max, constants by {how}",
        ),
        Assumption("orthogonal V", "V^T V = n I", None, v_dist == "orthogonal", "by the settings"),
        Assumption("no momentum", "beta = 0", momentum, momentum == 0, "by the settings"),
        Assumption(
            "linear over the perturbation",
            "|c(eps) - c(eps/2)| / |c| << 1",
            fd_error,
            None if fd_error is None else fd_error < 0.05,
            "two further pairs of forwards" if fd_error is not None else "not measured",
        ),
    ]
    return Guarantee(
        name=name or f"{quantity}: mean squared gradient",
        statement=(
            "(1/K) sum_k E||grad f(X^{k nu})||^2 <= 8 Delta_0/(alpha T) + 8 L alpha C rho sigma^2 "
            f"= {bound.value:.4g}"
        ),
        latex=LATEX,
        source="in the setting of arXiv 2410.07698; constants derived here",
        quantity=quantity,
        sense="upper",
        holds_in="expectation",
        bound=lambda record: bound.value,
        assumptions=lambda record: tuple(assumptions),
        trivial=trivial,
    )


def contraction_guarantee(
    quantity: str,
    m: int,
    n: int,
    r: int,
    alpha: float,
    nu: int,
    v_dist: str,
    tolerance: float = 0.05,
) -> Guarantee:
    """The exact law on ||X - X*||^2 / 2, relative to the start: an equality in expectation.

    The record's steps are whole periods.
    """
    factor = lozo_contraction(m, n, r, alpha, nu, v_dist)

    def promised(record: Record) -> np.ndarray:
        return factor ** record.curves(quantity).steps.astype(float)

    return Guarantee(
        name=f"{quantity}: exact law",
        statement=f"E||X_k - X*||^2 = {factor:.6g}^k ||X_0 - X*||^2, k periods of {nu} steps",
        source="derived here in the setting of arXiv 2410.07698",
        quantity=quantity,
        sense="equal",
        holds_in="expectation",
        bound=promised,
        tolerance=tolerance,
    )
