"""The same model as steps in weight space: w <- w + A'(g - Sh w + Sh u), Sh = XX'/n, g = Xy/n, w_0 = 0.

With u = 0 these are steps of gradient descent on |X'w - y|^2 / 2n, preconditioned by A'.
Cost O(n d^2 + L d^2) per prompt.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor


def moments(
    X: Float[Tensor, "batch d n"], y: Float[Tensor, "batch n"]
) -> tuple[Float[Tensor, "batch d d"], Float[Tensor, "batch d"]]:
    """Sh and g: all that gradient descent sees of a prompt."""
    n = X.shape[-1]
    # As a row: with y as a column the batched product reads X several times slower.
    return X @ X.mT / n, (y[:, None] @ X.mT)[:, 0] / n


def descend(
    second: Float[Tensor, "batch d d"],
    pull: Float[Tensor, "batch d"],
    layers: Sequence[Float[Tensor, "d d"]],
) -> list[Float[Tensor, "batch d"]]:
    """w_0, ..., w_L of steps w <- w + A'(pull - Sh w)."""
    column = pull[..., None]
    w = torch.zeros_like(column)
    path = [w[..., 0]]
    for t, A in enumerate(layers):
        gap = torch.baddbmm(column, second, w, alpha=-1) if t else column
        w = w + (gap[..., 0] @ A)[..., None]
        path.append(w[..., 0])
    return path


def weights(
    X: Float[Tensor, "batch d n"],
    y: Float[Tensor, "batch n"],
    layers: Sequence[Float[Tensor, "d d"]],
    u: Float[Tensor, " d"],
) -> list[Float[Tensor, "batch d"]]:
    """w_0, ..., w_L."""
    second, g = moments(X, y)
    return descend(second, g + second @ u, layers)


def predict(
    X: Float[Tensor, "batch d n"],
    y: Float[Tensor, "batch n"],
    xq: Float[Tensor, "batch d"],
    layers: Sequence[Float[Tensor, "d d"]],
    u: Float[Tensor, " d"],
) -> Float[Tensor, " batch"]:
    """w_L' x_q."""
    return (weights(X, y, layers, u)[-1] * xq).sum(-1)
