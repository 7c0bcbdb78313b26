"""Wishart matrices by Bartlett's decomposition, and the losses that they leave."""

from __future__ import annotations

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
    layers: Float[Tensor, "loops d d"] | list[Float[Tensor, "d d"]],
    moments: Float[Tensor, "count d d"],
) -> Float[Tensor, "count d d"]:
    """H = (I - A_L'S) ... (I - A_1'S): the error that is left of w*, where u is 0."""
    d = moments.shape[-1]
    unit = torch.eye(d, dtype=moments.dtype)
    found = unit.expand_as(moments)
    for A in layers:
        found = found - A.mT @ (moments @ found)
    return found


def reached(
    layers: Float[Tensor, "loops d d"] | list[Float[Tensor, "d d"]],
    moments: Float[Tensor, "count d d"],
) -> Float[Tensor, "count d d"]:
    """G with w_L = G (g + S u): G <- (I - A'S) G + A', from 0."""
    found = torch.zeros_like(moments)
    for A in layers:
        found = found + A.mT @ (torch.eye(moments.shape[-1], dtype=moments.dtype) - moments @ found)
    return found
