"""The same model as steps on the residuals of the n examples, for n < d.

With K = X'AX/n, k = X'A x_q/n, a = X'u and r_0 = y as a row: q <- q + (r + a)k, r <- r - (r + a)K.
Cost O(n^2 d + L n^2) per prompt where the layers are one and the same.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor


def _driven(
    X: Float[Tensor, "batch d n"],
    y: Float[Tensor, "batch n"],
    layers: Sequence[Float[Tensor, "d d"]],
    u: Float[Tensor, " d"],
) -> list[Float[Tensor, "batch n"]]:
    """The rows r_t + a that drive each of the L steps."""
    n = X.shape[-1]
    bias = (X.mT @ u[:, None])[..., 0]
    row, rows = y, []
    last: Tensor | None = None
    for A in layers:
        if A is not last:
            kernel, last = X.mT @ (A @ X) / n, A
        drive = row + bias
        rows.append(drive)
        row = row - (drive[..., None, :] @ kernel)[..., 0, :]
    return rows


def weights(
    X: Float[Tensor, "batch d n"],
    y: Float[Tensor, "batch n"],
    layers: Sequence[Float[Tensor, "d d"]],
    u: Float[Tensor, " d"],
) -> list[Float[Tensor, "batch d"]]:
    """w_0, ..., w_L of the feature form: w <- w + A'X(r + a)'/n."""
    n = X.shape[-1]
    w = X.new_zeros(X.shape[:-1])
    path = [w]
    for A, drive in zip(layers, _driven(X, y, layers, u), strict=True):
        w = w + ((X @ drive[..., None])[..., 0] @ A) / n
        path.append(w)
    return path


def predict(
    X: Float[Tensor, "batch d n"],
    y: Float[Tensor, "batch n"],
    xq: Float[Tensor, "batch d"],
    layers: Sequence[Float[Tensor, "d d"]],
    u: Float[Tensor, " d"],
) -> Float[Tensor, " batch"]:
    """The sum of (r_t + a)k over the steps."""
    n = X.shape[-1]
    total = torch.zeros_like(xq[..., 0])
    last: Tensor | None = None
    for A, drive in zip(layers, _driven(X, y, layers, u), strict=True):
        if A is not last:
            query, last = (X.mT @ (xq @ A.mT)[..., None])[..., 0] / n, A
        total = total + (drive * query).sum(-1)
    return total
