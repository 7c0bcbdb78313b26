"""What comes in: NumPy or torch, any real dtype, checked once; everything is computed in float64."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

ASYMMETRY = 1e-8
NEGATIVE = 1e-10


def as_float64(x: Any, name: str) -> Tensor:
    """A float64 tensor of anything that looks like an array; gradients flow back to a tensor.

    Raises ValueError for complex, NaN or infinite entries.
    """
    given = x if isinstance(x, Tensor) else torch.as_tensor(np.asarray(x))
    if given.is_complex():
        raise ValueError(f"{name} must be real, got dtype {given.dtype}")
    tensor = given.to(torch.float64)
    finite = torch.isfinite(tensor)
    if not bool(finite.all()):
        at = tuple(int(i) for i in (~finite).nonzero()[0])
        raise ValueError(
            f"{name} must be finite, got {float(tensor[at])} at index {at}; drop or repair that input"
        )
    return tensor


def as_covariances(x: Any, name: str) -> Float64[Tensor, "... d d"]:
    """Symmetric square matrices in float64; asymmetry of rounding size is removed.

    Raises ValueError naming the index of the first matrix that is not square or not symmetric.
    """
    a = as_float64(x, name)
    if a.ndim < 2 or a.shape[-1] != a.shape[-2] or a.shape[-1] == 0:
        raise ValueError(f"{name} must have shape (..., d, d) with d >= 1, got {tuple(a.shape)}")
    with torch.no_grad():
        scale = a.abs().amax(dim=(-2, -1))
        off = (a - a.mT).abs().amax(dim=(-2, -1))
        bad = off > ASYMMETRY * scale
        if bool(bad.any()):
            at = tuple(int(i) for i in bad.nonzero()[0])
            raise ValueError(
                f"{name}[{_shown(at)}] must be symmetric to {ASYMMETRY:g} of its largest entry, "
                f"got a difference of {float(off[at]):.3g}; use (A + A.T) / 2 if that is meant"
            )
    return (a + a.mT) / 2


def check_spectrum(w: Float64[Tensor, "... d"], name: str) -> None:
    """Refuse spectra with an eigenvalue below -1e-10 times the largest one."""
    low, high = w.amin(dim=-1), w.abs().amax(dim=-1)
    bad = low < -NEGATIVE * high
    if bool(bad.any()):
        at = tuple(int(i) for i in bad.nonzero()[0])
        raise ValueError(
            f"{name}[{_shown(at)}] must be positive semidefinite, got the eigenvalue "
            f"{float(low[at]):.6g} beside the largest {float(high[at]):.6g}"
        )


def as_tau(tau: Any, name: str = "tau", *, zero: bool = False) -> Tensor:
    """Tau as a float64 tensor, positive (or zero where that is meant), possibly infinite."""
    given = tau if isinstance(tau, Tensor) else torch.as_tensor(np.asarray(tau, dtype=np.float64))
    value = given.to(torch.float64)
    bad = value.isnan() | (value < 0) | ((value == 0) & (not zero))
    if bool(bad.any()):
        allowed = "at least 0" if zero else "positive"
        raise ValueError(f"{name} must be {allowed} (inf allowed), got {tau}")
    infinite = value.isinf()
    if bool(infinite.any()) and not bool(infinite.all()):
        raise ValueError(f"{name} must be finite for every problem of a batch or infinite for all")
    return value


def as_weights(weights: Any, n: int, batch: torch.Size) -> Float64[Tensor, "*batch n"]:
    """Weights that sum to 1; None is 1/n each.

    Raises ValueError for a negative weight or a sum of 0, warns where the sum was not 1.
    """
    if weights is None:
        return torch.full((*batch, n), 1.0 / n, dtype=torch.float64)
    w = as_float64(weights, "weights")
    if w.ndim == 0 or w.shape[-1] != n:
        raise ValueError(f"weights must have one entry an input, {n}, got shape {tuple(w.shape)}")
    if bool((w < 0).any()):
        at = tuple(int(i) for i in (w < 0).nonzero()[0])
        raise ValueError(f"weights must not be negative, got {float(w[at])} at index {at}")
    total = w.sum(dim=-1, keepdim=True)
    if bool((total == 0).any()):
        raise ValueError("weights must not all be 0; leave them out for equal weights")
    if not torch.allclose(total, torch.ones_like(total), rtol=0, atol=1e-8):
        import warnings

        sums = float(total.detach().flatten()[0])
        warnings.warn(
            f"weights sum to {sums:.6g} and are divided by that", UserWarning, stacklevel=4
        )
    return (w / total).expand(*batch, n)


def unit(x: float) -> float:
    """The number itself, or an error where a tolerance is not in (0, inf)."""
    if not (math.isfinite(x) and x > 0):
        raise ValueError(f"tol must be positive and finite, got {x}")
    return x


def _shown(at: tuple[int, ...]) -> str:
    return ", ".join(map(str, at)) if at else "..."
