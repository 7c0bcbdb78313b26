"""Softmax regression with L, mu and, where there is a ridge, W* and f*."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import torch
from jaxtyping import Float64, Int64
from scipy.optimize import minimize
from torch import Tensor, nn

from surefoot._numerics.checks import check_number
from surefoot._problems.convex import Matrix, Problem
from surefoot._problems.real import real

STATIONARY = 1e-12
"""|grad f| at what is called the minimiser; f is then within 1e-24 / (2 mu) of f*."""


def softmax(
    x: Float64[Tensor, "N n"],
    labels: Int64[Tensor, "N"],
    l2: float,
    *,
    classes: int,
    name: str = "softmax",
    solve: bool = True,
) -> Problem:
    """Mean cross-entropy of x W^T plus (l2/2) ||W||^2: L = lmax(X^T X / N)/2 + l2, mu = l2.

    The Hessian of the cross-entropy in the outputs is diag(p) - p p^T, at most 1/2.

    Parameters
    ----------
    x : Tensor
        (N, n) features.
    labels : Tensor
        N class numbers from 0.
    l2 : float
        Weight of the ridge; at 0 there may be no minimiser, so none is sought.
    classes : int
        Rows of W.
    name : str
        For tables.
    solve : bool
        Whether W* and f* are wanted: a solve with the whole Hessian, of size classes * n.
    """
    check_number("l2", l2, least=0)

    def part(outputs: Tensor, rows: Tensor | None) -> Tensor:
        return nn.functional.cross_entropy(outputs, labels if rows is None else labels[rows])

    L = 0.5 * float(torch.linalg.eigvalsh(x.T @ x / len(x))[-1]) + l2
    free = Problem(name, x, classes, part, l2, L, l2, math.nan)
    if not solve or l2 == 0:
        return free
    W = _minimiser(free)
    return Problem(name, x, classes, part, l2, L, l2, float(free.f(W)), W)


@cache
def softmax_on(table: str, l2: float, *, bias: bool = False, solve: bool = True) -> Problem:
    """Softmax regression on a table of `real`."""
    x, y = real(table, bias=bias)
    return softmax(
        x, y, l2, classes=int(y.max()) + 1, name=f"{table.replace('_', ' ')} softmax", solve=solve
    )


def hessian(problem: Problem, W: Matrix) -> Float64[Tensor, "mn mn"]:
    """Of a softmax problem at W, rows of W after one another."""
    x, (m, n) = problem.features, W.shape
    p = torch.softmax(x @ W.T, dim=1)
    weighted = torch.einsum("Nc,Nj->Ncj", p, x).reshape(len(x), m * n)
    H = -(weighted.T @ weighted)
    for c in range(m):
        at = slice(c * n, (c + 1) * n)
        H[at, at] += weighted[:, at].T @ x
    return H / len(x) + problem.l2 * torch.eye(m * n, dtype=x.dtype)


def _minimiser(problem: Problem) -> Matrix:
    """L-BFGS to about 1e-8, then Newton steps, which square the error."""
    shape = (problem.m, problem.n)

    def both(w: np.ndarray) -> tuple[float, np.ndarray]:
        W = torch.from_numpy(w.reshape(shape))
        return float(problem.f(W)), problem.gradient(W).numpy().ravel()

    near = minimize(
        both, np.zeros(shape).ravel(), jac=True, method="L-BFGS-B",
        options={"maxiter": 5000, "ftol": 1e-16, "gtol": 1e-9, "maxfun": 20000},
    )  # fmt: skip
    W = torch.from_numpy(near.x.reshape(shape))
    for _ in range(20):
        g = problem.gradient(W)
        if float(g.norm()) <= STATIONARY:
            return W
        W = W - torch.linalg.solve(hessian(problem, W), g.flatten()).reshape(shape)
    raise RuntimeError(
        f"{problem.name}: no minimiser found, |grad f| = {float(g.norm()):.2g} after 20 Newton steps; "
        "raise l2"
    )
