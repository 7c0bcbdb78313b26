"""What a looped model is compared with, each a callable (X, y, xq) -> predictions.

Layers of their own are `LoopedTransformer(..., tied=False)`; one step of gradient descent is `loops=1`.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from surefoot._numerics.arguments import checked
from surefoot._numerics.checks import check_choice, check_number
from surefoot.in_context._covariance import covariance
from surefoot.in_context._estimators import least_squares, ridge_weights
from surefoot.in_context._forms import literal
from surefoot.in_context._prompt_shapes import check_prompt
from surefoot.in_context.looped import LoopedTransformer
from surefoot.in_context.population import optimal_schedule, optimal_step


@checked
def ols(
    X: Float[Tensor, "batch d n"], y: Float[Tensor, "batch n"], xq: Float[Tensor, "batch d"]
) -> Float[Tensor, " batch"]:
    """Least squares, of minimal norm where n < d: the Bayes rule of prompts without noise whose S is I.

    Parameters
    ----------
    X, y, xq
        The prompts.

    Raises
    ------
    ValueError
        The shapes do not fit, or a number is not finite.
    """
    check_prompt(X, y, xq)
    if not X.shape[-1]:
        return torch.zeros_like(xq[:, 0])
    return (least_squares(X, y) * xq).sum(-1)


@checked
def ridge(
    X: Float[Tensor, "batch d n"],
    y: Float[Tensor, "batch n"],
    xq: Float[Tensor, "batch d"],
    alpha: float,
) -> Float[Tensor, " batch"]:
    """Ridge regression without intercept, |X'w - y|^2 + alpha |w|^2: Bayes for S = I and noise sqrt(alpha).

    Parameters
    ----------
    X, y, xq
        The prompts.
    alpha
        The penalty, in squared units of x; positive.

    Raises
    ------
    ValueError
        The shapes do not fit, a number is not finite, or alpha is not positive.
    """
    check_prompt(X, y, xq)
    alpha = check_number("alpha", alpha, above=0)
    return (ridge_weights(X, y, alpha) * xq).sum(-1)


@checked
def optimal_model(
    d: int,
    n: int,
    loops: int,
    *,
    tied: bool = True,
    sigma: Float[Tensor, "d d"] | Float[np.ndarray, "d d"] | None = None,
) -> LoopedTransformer:
    """The looped model at its exact optimum among scalar steps, in float64: A_t = b_t S^-1.

    Parameters
    ----------
    d, n, loops
        Features, examples, loops (1 to 20).
    tied
        One step for all loops; otherwise the best polynomial of degree `loops`.
    sigma
        S; None: the identity.

    Raises
    ------
    ValueError
        An argument is out of range.
    """
    check_choice("tied", tied, (True, False))
    steps = [optimal_step(d, n, loops)] if tied else optimal_schedule(d, n, loops).steps
    model = LoopedTransformer(d, loops, tied=tied, sigma=sigma, dtype=torch.float64)
    unit = torch.eye(model.d, dtype=torch.float64)
    inverse = unit if sigma is None else torch.linalg.inv(covariance("sigma", sigma, model.d))
    each = torch.tensor(steps, dtype=torch.float64)[:, None, None] * inverse
    with torch.no_grad():
        model.A.copy_(each[0] if tied else each)
    return model


@checked
class FullLinearAttention(nn.Module):
    """L layers of linear attention whose P and Q are trained whole: no block is held at zero.

    Source: arXiv 2306.00297, without its sparsity; sign and 1/n as in `LoopedTransformer`.

    Parameters
    ----------
    d, loops
        Features, layers.
    tied
        One P and Q for all layers.
    init_std
        Standard deviation of all entries at the start.
    seed
        Of the start.
    dtype
        Of the parameters; by default torch's own default.

    Attributes
    ----------
    P, Q
        (d + 1, d + 1), or (loops, d + 1, d + 1).

    Raises
    ------
    ValueError
        An argument is out of range; in a call, as `LoopedTransformer`.
    """

    def __init__(
        self,
        d: int,
        loops: int,
        *,
        tied: bool = False,
        init_std: float = 0.1,
        seed: int = 0,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.d = check_number("d", d, least=1, whole=True)
        self.loops = check_number("loops", loops, least=1, whole=True)
        self.tied = check_choice("tied", tied, (True, False))
        shape = (self.d + 1, self.d + 1) if tied else (self.loops, self.d + 1, self.d + 1)
        self.P, self.Q = _started(shape, 2, init_std, seed, dtype)

    def forward(
        self,
        X: Float[Tensor, "batch d n"],
        y: Float[Tensor, "batch n"],
        xq: Float[Tensor, "batch d"],
    ) -> Float[Tensor, " batch"]:
        """-[Z_L]_{d+1, n+1}, in O(L n^2 d).

        Parameters
        ----------
        X, y, xq
            The prompts.
        """
        check_prompt(X, y, xq, self.d, self.P.dtype)
        Z = literal.prompt_matrix(X, y, xq)
        for t in range(self.loops):
            P, Q = (self.P, self.Q) if self.tied else (self.P[t], self.Q[t])
            Z = Z - literal.attention(Z, P, Q) / max(X.shape[-1], 1)
        return -Z[..., -1, -1]


@checked
class GDPlusPlus(nn.Module):
    """GD++: each step also moves the features, x <- x - gamma (XX'/n) x, the query among them.

    Both with what the loop began with; y_i and the query's label as in `LoopedTransformer`.
    Source: arXiv 2212.07677, section 3 [recalled].

    Parameters
    ----------
    d, loops
        Features, loops.
    dtype
        Of the parameters; by default torch's own default.

    Attributes
    ----------
    A
        (d, d), zero at the start.
    gamma
        A number, zero at the start: then it is gradient descent.

    Raises
    ------
    ValueError
        An argument is out of range; in a call, as `LoopedTransformer`.
    """

    def __init__(self, d: int, loops: int, *, dtype: torch.dtype | None = None) -> None:
        super().__init__()
        self.d = check_number("d", d, least=1, whole=True)
        self.loops = check_number("loops", loops, least=0, whole=True)
        kind = torch.get_default_dtype() if dtype is None else dtype
        self.A = nn.Parameter(torch.zeros(self.d, self.d, dtype=kind))
        self.gamma = nn.Parameter(torch.zeros((), dtype=kind))

    def forward(
        self,
        X: Float[Tensor, "batch d n"],
        y: Float[Tensor, "batch n"],
        xq: Float[Tensor, "batch d"],
    ) -> Float[Tensor, " batch"]:
        """The predicted label of each query, in O(L n d^2).

        Parameters
        ----------
        X, y, xq
            The prompts.
        """
        check_prompt(X, y, xq, self.d, self.A.dtype)
        n = max(X.shape[-1], 1)
        row, query, found = y, xq, torch.zeros_like(xq[:, 0])
        for _ in range(self.loops):
            second = X @ X.mT / n
            # A' X r / n: what the step adds to w, in the features as they now are.
            step = (X @ row[..., None])[..., 0] @ self.A / n
            row, found = row - (step[:, None] @ X)[:, 0], found + (step * query).sum(-1)
            X, query = (
                X - self.gamma * (second @ X),
                query - self.gamma * (second @ query[..., None])[..., 0],
            )
        return found


@checked
class SoftmaxTransformer(nn.Module):
    """L loops of softmax attention, Z <- Z - P Z softmax(Z'QZ) over the n examples: no gradient descent.

    The negative control of a probe; not linear in the query.

    Parameters
    ----------
    d, loops
        Features, loops.
    init_std
        Standard deviation of all entries of P and Q at the start.
    seed
        Of the start.
    dtype
        Of the parameters; by default torch's own default.

    Attributes
    ----------
    P, Q
        (d + 1, d + 1), the same in every loop.

    Raises
    ------
    ValueError
        An argument is out of range; in a call, as `LoopedTransformer`, and without an example.
    """

    def __init__(
        self,
        d: int,
        loops: int,
        *,
        init_std: float = 0.3,
        seed: int = 0,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.d = check_number("d", d, least=1, whole=True)
        self.loops = check_number("loops", loops, least=1, whole=True)
        self.P, self.Q = _started((self.d + 1, self.d + 1), 2, init_std, seed, dtype)

    def forward(
        self,
        X: Float[Tensor, "batch d n"],
        y: Float[Tensor, "batch n"],
        xq: Float[Tensor, "batch d"],
    ) -> Float[Tensor, " batch"]:
        """The predicted label of each query.

        Parameters
        ----------
        X, y, xq
            The prompts, of at least one example.
        """
        check_prompt(X, y, xq, self.d, self.P.dtype)
        if not X.shape[-1]:
            raise ValueError("X must hold at least one example: softmax over none is not defined")
        Z = literal.prompt_matrix(X, y, xq)
        for _ in range(self.loops):
            keys = Z[..., :-1]
            share = torch.softmax(keys.mT @ self.Q @ Z, -2)
            Z = Z - self.P @ (keys @ share)
        return -Z[..., -1, -1]


def _started(
    shape: tuple[int, ...], count: int, std: float, seed: int, dtype: torch.dtype | None
) -> list[nn.Parameter]:
    std = check_number("init_std", std, least=0)
    generator = torch.Generator().manual_seed(check_number("seed", seed, least=0, whole=True))
    kind = torch.get_default_dtype() if dtype is None else dtype
    return [
        nn.Parameter((std * torch.randn(shape, generator=generator, dtype=torch.float64)).to(kind))
        for _ in range(count)
    ]
