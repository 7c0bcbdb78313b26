"""The weights that least squares and ridge find on the examples of a prompt."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def least_squares(
    X: Float[Tensor, "batch d n"], y: Float[Tensor, "batch n"]
) -> Float[Tensor, "batch d"]:
    """Of minimal norm where n < d."""
    found: Tensor = torch.linalg.pinv(X.mT) @ y[..., None]
    return found[..., 0]


def ridge_weights(
    X: Float[Tensor, "batch d n"], y: Float[Tensor, "batch n"], alpha: float
) -> Float[Tensor, "batch d"]:
    """(XX' + alpha I)^-1 Xy."""
    unit = torch.eye(X.shape[1], dtype=X.dtype, device=X.device)
    found: Tensor = torch.linalg.solve(X @ X.mT + alpha * unit, (X @ y[..., None])[..., 0])
    return found
