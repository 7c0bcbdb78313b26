"""Losses of one matrix with known constants: the quadratic of the paper, ridge and softmax regression.

Each is a model whose only adapted weight is `lin`, so that PEFT and a chain run on it unchanged.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from surefoot._problems.convex import Matrix as Matrix
from surefoot._problems.convex import Problem as Problem
from surefoot._problems.ridge import ridge as ridge_of
from surefoot._problems.softmax import softmax_on
from surefoot.lora.doors.peft import with_lora


class OneMatrix(nn.Module):
    """A linear layer applied to rows of features; without features, to the identity."""

    def __init__(self, rows: Float[Tensor, "N n"], m: int) -> None:
        super().__init__()
        self.lin = nn.Linear(rows.shape[1], m, bias=False, dtype=rows.dtype)
        nn.init.zeros_(self.lin.weight)
        self.register_buffer("rows", rows, persistent=False)

    def forward(self) -> Float[Tensor, "N m"]:
        """The outputs for all rows."""
        found: Tensor = self.lin(self.rows)
        return found


@cache
def counterexample(seed: int, scale: float = 10.0) -> Problem:
    """Section 3 of the paper: w^T M w + b^T w on 3 x 3, M = diag(10, 1, ..., 1): L = 20, mu = 2."""
    M, b = counterexample_terms(seed, scale)
    M_t, b_t = torch.from_numpy(M), torch.from_numpy(b)

    def part(outputs: Tensor, rows: Tensor | None) -> Tensor:
        W = outputs.T
        return (M_t * W**2 + b_t * W).sum()

    f_star = float(-(b**2 / (4 * M)).sum())
    return Problem("3 x 3", torch.eye(3, dtype=torch.float64), 3, part, 0.0, 20.0, 2.0, f_star)


def counterexample_terms(
    seed: int, scale: float = 10.0
) -> tuple[Float[np.ndarray, "3 3"], Float[np.ndarray, "3 3"]]:
    """M and b of the counterexample; b is Gaussian, its law in the paper is not known."""
    M = np.ones(9)
    M[0] = 10.0
    b = scale * np.random.default_rng(seed).standard_normal(9)
    return M.reshape(3, 3), b.reshape(3, 3)


@cache
def ridge(N: int = 300, m: int = 6, n: int = 20, l2: float = 0.1) -> Problem:
    """(1/2N) ||X W^T - Y||^2 + (l2/2) ||W||^2 on Gaussian data with noise."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((N, n))
    Y = X @ rng.standard_normal((n, m)) + 0.1 * rng.standard_normal((N, m))
    return ridge_of(X, Y, l2)


def digits_softmax(l2: float = 0.05) -> Problem:
    """Softmax regression on the digits of scikit-learn, pixels in [0, 1], a 10 x 64 weight."""
    return softmax_on("digits", l2)


def adapted(problem: Problem, r: int, alpha: int | None = None) -> nn.Module:
    """The problem as a PeftModel; alpha defaults to r, that is to a scaling of 1."""
    with torch.random.fork_rng(devices=[]):
        # PEFT initialises from the global generator; the chain overwrites what it draws.
        found: nn.Module = with_lora(
            OneMatrix(problem.features, problem.m), r, ["lin"], alpha=alpha
        )
        return found
