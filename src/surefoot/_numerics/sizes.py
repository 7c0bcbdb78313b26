"""Sizes of tensors: 16 bits hold neither the square of 300 (float16) nor the sum of 300 ones (bfloat16)."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor


def wide_dtype(dtype: torch.dtype) -> torch.dtype:
    """What numbers of a dtype are squared and summed in: at least float32."""
    narrow = dtype.is_floating_point and dtype.itemsize < 4
    return torch.float32 if narrow else dtype


def wide(x: Tensor) -> Tensor:
    """A tensor in a dtype that its squares and sums fit into; itself where it is in one."""
    return x.to(wide_dtype(x.dtype))


def norm_of(tensors: Iterable[Float[Tensor, "..."]]) -> float:
    """The Euclidean norm of all tensors together, as one vector."""
    parts = [
        torch.linalg.vector_norm(t, dtype=torch.complex128 if t.is_complex() else torch.float64)
        for t in tensors
    ]
    return math.hypot(*(float(p) for p in parts))
