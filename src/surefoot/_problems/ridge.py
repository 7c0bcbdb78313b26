"""Ridge regression and least squares in closed form."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from surefoot._numerics.checks import check_number
from surefoot._problems.convex import Problem
from surefoot._problems.real import real


def ridge(
    x: Float64[np.ndarray, "N n"],
    y: Float64[np.ndarray, "N m"],
    l2: float,
    *,
    name: str = "ridge",
) -> Problem:
    """(1/2N) ||X W^T - Y||^2 + (l2/2) ||W||^2 with its exact constants.

    At l2 = 0 mu is the smallest curvature that is not 0, the constant of Polyak and Lojasiewicz, and
    the minimiser is the one of smallest norm.

    Parameters
    ----------
    x, y : ndarray
        (N, n) features and (N, m) targets.
    l2 : float
        Weight of the ridge, at least 0.
    name : str
        For tables.
    """
    check_number("l2", l2, least=0)
    N, n = x.shape
    # Of the smaller side: without a ridge the other eigenvalues are 0 and count for nothing.
    gram = x @ x.T / N if l2 == 0 and n > N else x.T @ x / N
    spectrum = np.linalg.eigvalsh(gram)
    if l2 == 0:
        spectrum = spectrum[spectrum > max(N, n) * np.finfo(float).eps * spectrum[-1]]
        W = np.linalg.lstsq(x, y, rcond=None)[0].T
    else:
        W = np.linalg.solve(gram + l2 * np.eye(n), x.T @ y / N).T
    f_star = 0.5 * np.mean(np.sum((x @ W.T - y) ** 2, axis=1)) + 0.5 * l2 * np.sum(W**2)
    targets = torch.from_numpy(y)

    def part(outputs: Tensor, rows: Tensor | None) -> Tensor:
        return 0.5 * ((outputs - (targets if rows is None else targets[rows])) ** 2).sum(1).mean()

    return Problem(
        name, torch.from_numpy(x), y.shape[1], part, l2, float(spectrum[-1] + l2),
        float(spectrum[0] + l2), float(f_star), torch.from_numpy(W),
    )  # fmt: skip


@cache
def ridge_on(table: str, l2: float, *, bias: bool = False) -> Problem:
    """Ridge regression on a table of `real` whose targets are numbers, scaled to mean 0 and sd 1."""
    x, y = real(table, bias=bias)
    targets = y.double().numpy()
    targets = (targets - targets.mean()) / targets.std()
    return ridge(x.numpy(), targets[:, None], l2, name=f"{table.replace('_', ' ')} ridge")
