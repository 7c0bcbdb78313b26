"""Wishart matrices by Bartlett's decomposition, and the losses that they leave."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor


def second_moments(
    d: int, n: int, count: int, rng: np.random.Generator
) -> Float64[Tensor, "count d d"]:
    """XX'/n of n columns x_i ~ N(0, I_d): d^2 random numbers instead of n d where n >= d."""
    if n < d:
        X = torch.from_numpy(rng.standard_normal((count, d, n)))
        return X @ X.mT / n
    root = np.tril(rng.standard_normal((count, d, d)), -1)
    at = np.arange(d)
    root[:, at, at] = np.sqrt(rng.chisquare(n - at, (count, d)))
    factor = torch.from_numpy(root)
    return factor @ factor.mT / n


def left(
    layers: Sequence[Float[Tensor, "d d"]], moments: Float[Tensor, "count d d"]
) -> Float[Tensor, "count d d"]:
    """H = (I - A_L'S) ... (I - A_1'S): the error that is left of w*, where u is 0."""
    unit = torch.eye(moments.shape[-1], dtype=moments.dtype)
    if not layers:
        return unit.expand_as(moments)
    # Transposed, as S @ A is one product of matrices for the whole batch and A' @ S is one a prompt.
    if all(A is layers[0] for A in layers):
        power: Tensor = torch.linalg.matrix_power(unit - moments @ layers[0], len(layers))
        return power.mT
    found = unit - moments @ layers[0]
    for A in layers[1:]:
        found = found @ (unit - moments @ A)
    return found.mT


def conditional_loss(
    layers: Sequence[Float[Tensor, "d d"]],
    u: Float[Tensor, " d"],
    moments: Float[Tensor, "count d d"],
    noise: float,
    n: int,
) -> Float[Tensor, " count"]:
    """E[(TF_L - w*'x_q)^2 | X] for w*, x_q ~ N(0, I) and labels with noise.

    w* - w_L = H w* - (I - H) u - G X e / n, where G <- (I - A'S) G + A'.
    """
    H = left(layers, moments)
    loss = H.square().sum((1, 2)) + (u - H @ u).square().sum(1)
    if noise:
        unit, G = torch.eye(moments.shape[-1], dtype=moments.dtype), torch.zeros_like(moments)
        for A in layers:
            G = G + A.mT @ (unit - moments @ G)
        loss = loss + noise**2 / n * ((G @ moments) * G).sum((1, 2))
    return loss
