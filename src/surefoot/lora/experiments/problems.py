"""Losses of one matrix with known constants: the quadratic of the paper, ridge and softmax regression.

Each is a model whose only adapted weight is `lin`, so that PEFT and a chain run on it unchanged.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from jaxtyping import Float
from scipy.optimize import minimize
from sklearn.datasets import load_digits
from torch import Tensor, nn

Matrix = Float[Tensor, "m n"]


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


@dataclass(frozen=True)
class Problem:
    """f(W) = data(outputs) + (l2/2) ||W||^2 with its constants; W0 = 0.

    `part(outputs, rows)` is the data term on some rows; None stands for all of them.
    """

    name: str
    features: Float[Tensor, "N n"]
    m: int
    part: Callable[[Tensor, Tensor | None], Tensor]
    l2: float
    L: float
    mu: float
    f_star: float

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
    spectrum = np.linalg.eigvalsh(X.T @ X / N) + l2
    W = np.linalg.solve(X.T @ X / N + l2 * np.eye(n), X.T @ Y / N).T
    f_star = 0.5 * np.mean(np.sum((X @ W.T - Y) ** 2, axis=1)) + 0.5 * l2 * np.sum(W**2)
    targets = torch.from_numpy(Y)

    def part(outputs: Tensor, rows: Tensor | None) -> Tensor:
        y = targets if rows is None else targets[rows]
        return 0.5 * ((outputs - y) ** 2).sum(1).mean()

    return Problem(
        "ridge", torch.from_numpy(X), m, part, l2, float(spectrum[-1]), float(spectrum[0]),
        float(f_star),
    )  # fmt: skip


@cache
def digits_softmax(l2: float = 0.05) -> Problem:
    """Softmax regression on the digits of scikit-learn, pixels in [0, 1], a 10 x 64 weight.

    L = lmax(X^T X / N)/2 + l2 (the Hessian of softmax is at most 1/2), mu = l2; f* by L-BFGS.
    """
    x, y = load_digits(return_X_y=True)
    X, labels = torch.from_numpy(x / 16.0), torch.from_numpy(y)

    def part(outputs: Tensor, rows: Tensor | None) -> Tensor:
        target = labels if rows is None else labels[rows]
        return nn.functional.cross_entropy(outputs, target)

    L = 0.5 * float(torch.linalg.eigvalsh(X.T @ X / len(X))[-1]) + l2
    free = Problem("digits softmax", X, 10, part, l2, L, l2, 0.0)

    def both(w: np.ndarray) -> tuple[float, np.ndarray]:
        W = torch.from_numpy(w.reshape(10, 64))
        return float(free.f(W)), free.gradient(W).numpy().ravel()

    found = minimize(
        both, np.zeros(640), jac=True, method="L-BFGS-B",
        options={"maxiter": 5000, "ftol": 1e-16, "gtol": 1e-11, "maxfun": 20000},
    )  # fmt: skip
    return Problem("digits softmax", X, 10, part, l2, L, l2, float(found.fun))


def adapted(problem: Problem, r: int, alpha: int | None = None) -> nn.Module:
    """The problem as a PeftModel; alpha defaults to r, that is to a scaling of 1."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=r, lora_alpha=r if alpha is None else alpha, target_modules=["lin"])
    with torch.random.fork_rng(devices=[]):
        # PEFT initialises from the global generator; the chain overwrites what it draws.
        return get_peft_model(OneMatrix(problem.features, problem.m), config)
