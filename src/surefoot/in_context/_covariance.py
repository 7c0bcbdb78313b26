"""Covariance matrices as given by a caller: checked, and their powers."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float64
from torch import Tensor

from surefoot._numerics.checks import check_numbers


def square(name: str, value: Any, d: int) -> Float64[Tensor, "d d"]:
    """A finite (d, d) matrix in float64 on the CPU."""
    found = torch.from_numpy(check_numbers(name, value, ndim=2))
    if found.shape != (d, d):
        raise ValueError(f"{name} must have shape ({d}, {d}), got {tuple(found.shape)}")
    return found


def covariance(name: str, value: Any, d: int) -> Float64[Tensor, "d d"]:
    """A positive definite one, symmetric to rounding.

    Raises
    ------
    ValueError
        It is none; the message names the argument and its smallest eigenvalue.
    """
    found = square(name, value, d)
    largest = float(found.abs().max())
    if float((found - found.mT).abs().max()) > 1e-6 * largest:
        raise ValueError(f"{name} must be symmetric, got an asymmetry of {_gap(found):.3g}")
    found = (found + found.mT) / 2
    values = torch.linalg.eigvalsh(found)
    # Below this the smallest eigenvalue is rounding of the largest.
    if float(values[0]) <= d * torch.finfo(found.dtype).eps * float(values[-1]):
        raise ValueError(
            f"{name} must be positive definite, got a smallest eigenvalue of {float(values[0]):.3g} "
            f"(the largest is {float(values[-1]):.3g})"
        )
    return found


def powers(sigma: Float64[Tensor, "d d"], *exponents: float) -> tuple[Float64[Tensor, "d d"], ...]:
    """Symmetric powers of a positive definite matrix."""
    values, vectors = torch.linalg.eigh(sigma)
    return tuple((vectors * values**p) @ vectors.mT for p in exponents)


def _gap(matrix: Tensor) -> float:
    return float((matrix - matrix.mT).abs().max())
