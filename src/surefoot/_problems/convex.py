"""A convex loss of one matrix, with the constants that theorems ask for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

Matrix = Float[Tensor, "m n"]


@dataclass(frozen=True)
class Problem:
    """f(W) = data(outputs) + (l2/2) ||W||^2 in float64, its constants, and where it is least; W0 = 0.

    Attributes
    ----------
    name : str
        For tables.
    features : Tensor
        X, (N, n); the outputs are X W^T.
    m : int
        Rows of W.
    part : callable
        `part(outputs, rows)` is the data term on some rows; None stands for all of them.
    l2 : float
        Weight of the ridge.
    L, mu : float
        Smoothness, and strong convexity (the constant of Polyak and Lojasiewicz where l2 = 0).
    f_star : float
        The least value, NaN where it was not asked for or is not attained.
    minimiser : Tensor, optional
        (m, n), None where f_star is NaN; of smallest norm where there are several.
    """

    name: str
    features: Float[Tensor, "N n"]
    m: int
    part: Callable[[Tensor, Tensor | None], Tensor]
    l2: float
    L: float
    mu: float
    f_star: float
    minimiser: Matrix | None = None

    @property
    def n(self) -> int:
        """Columns of W."""
        return int(self.features.shape[1])

    def f(self, W: Matrix, rows: Tensor | None = None) -> Float[Tensor, ""]:
        """The loss at a weight, on all rows or some."""
        x = self.features if rows is None else self.features[rows]
        return self.part(x @ W.T, rows) + 0.5 * self.l2 * (W**2).sum()

    def gradient(self, W: Matrix, rows: Tensor | None = None) -> Matrix:
        """By autograd."""
        W = W.detach().requires_grad_(True)
        (g,) = torch.autograd.grad(self.f(W, rows), W)
        return g.detach()

    @property
    def gap0(self) -> float:
        """D0 at W = 0."""
        return float(self.f(torch.zeros(self.m, self.n, dtype=torch.float64))) - self.f_star
