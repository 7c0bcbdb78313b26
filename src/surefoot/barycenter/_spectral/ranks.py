"""The rank rule: which eigenvalues of an input are 0."""

from __future__ import annotations

import torch
from jaxtyping import Float64
from torch import Tensor

EPS = torch.finfo(torch.float64).eps


def ranked(w: Float64[Tensor, "... d"], eps: float = EPS) -> Float64[Tensor, "... d"]:
    """Eigenvalues below d eps max are exactly 0.

    Clipping at 0 alone leaves 1e-16 on singular inputs, whose square root is an error of 1e-8.
    """
    floor = w.shape[-1] * eps * w.amax(dim=-1, keepdim=True)
    return torch.where(w > floor, w, torch.zeros_like(w))


def inverse(x: Tensor) -> Tensor:
    """1/x, and 0 where x is 0: the inverse on the range."""
    return torch.where(x > 0, 1 / torch.where(x > 0, x, torch.ones_like(x)), torch.zeros_like(x))
