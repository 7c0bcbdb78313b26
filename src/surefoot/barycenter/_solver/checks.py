"""What comes in: NumPy or torch, any real dtype, checked once; everything is computed in float64.

float32 is no exception: an eigendecomposition in float32 costs Upsilon up to 3e-5 of itself at a
condition number of 1e4 and 3e-4 at 1e6, and stalls the descent far from `tol`; rounding the inputs to
float32 and computing in float64 costs 2e-6 at most (200 pairs, d = 10, tau = .01 and 1). What float32
has already rounded off the inputs is taken for what it is: see `_of_single`.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from surefoot.errors import SurefootError, warn

ASYMMETRY = 1e-8
NEGATIVE = 1e-10
SINGLE = torch.finfo(torch.float32).eps
SINGLE_SLACK = 64 * SINGLE
"""Asymmetry, and negative eigenvalues, that are taken for the rounding of float32 inputs."""
CONDITION = 1e5
SMALLEST = 1e-120
"""Variances below this, or above its inverse, have squares that are no numbers."""


def lost(method: str) -> SurefootError:
    """For a method whose point is no covariance matrix any more."""
    return SurefootError(
        f"method {method!r} came to a point that is not positive definite, by rounding or by too long a "
        "step; use method='bb', or add a ridge to the inputs"
    )


def dtype_of(*xs: Any) -> torch.dtype:
    """What a result is returned in: float32 where every x is an array of it, else float64."""
    single = all(str(getattr(x, "dtype", None)).removeprefix("torch.") == "float32" for x in xs)
    return torch.float32 if single else torch.float64


def as_float64(x: Any, name: str) -> Tensor:
    """A float64 tensor of anything that looks like an array; gradients flow back to a tensor.

    Raises ValueError for complex, NaN or infinite entries.
    """
    given = x if isinstance(x, Tensor) else _tensor(x, name)
    if given.is_complex() or given.dtype == torch.bool:
        raise ValueError(f"{name} must be real numbers, got dtype {given.dtype}")
    tensor = given.to(torch.float64)
    finite = torch.isfinite(tensor)
    if not bool(finite.all()):
        at = tuple(int(i) for i in (~finite).nonzero()[0])
        raise ValueError(
            f"{name} must be finite, got {float(tensor[at])} at index {at}; drop or repair that input"
        )
    return tensor


def _tensor(x: Any, name: str) -> Tensor:
    try:
        array = np.asarray(x)
    except ValueError as error:
        shapes = [tuple(np.shape(part)) for part in x]
        raise ValueError(f"{name} must all have one shape, got {shapes}") from error
    if array.dtype.kind not in "biufc":
        raise ValueError(
            f"{name} must be an array of numbers, got {type(x).__name__} {array.dtype}"
        )
    # torch knows neither the other byte order nor long doubles, and warns of arrays that are read-only.
    native = array.dtype.newbyteorder("=")
    if array.dtype.kind == "f" and native.itemsize > 8:
        native = np.dtype(np.float64)
    return torch.as_tensor(
        array if array.flags.writeable and native == array.dtype else array.astype(native)
    )


def broadcast(x: Tensor, shape: torch.Size, name: str) -> Tensor:
    """x in a shape; raises ValueError where it does not fit."""
    try:
        return x.expand(shape)
    except RuntimeError as error:
        raise ValueError(
            f"{name} must have a shape that broadcasts to {tuple(shape)}, got {tuple(x.shape)}"
        ) from error


def as_covariances(x: Any, name: str) -> Float64[Tensor, "... d d"]:
    """Symmetric square matrices in float64; asymmetry of rounding size is removed.

    Raises ValueError naming the index of the first matrix that is not square or not symmetric, warns
    of float32 matrices whose condition number is above 1e5.
    """
    a = as_float64(x, name)
    if a.ndim < 2 or a.shape[-1] != a.shape[-2] or a.shape[-1] == 0:
        raise ValueError(f"{name} must have shape (..., d, d) with d >= 1, got {tuple(a.shape)}")
    single = dtype_of(x) == torch.float32
    allowed = SINGLE_SLACK if single else ASYMMETRY
    with torch.no_grad():
        scale = torch.linalg.vector_norm(a, ord=math.inf, dim=(-2, -1))
        off = torch.linalg.vector_norm(a - a.mT, ord=math.inf, dim=(-2, -1))
        bad = off > allowed * scale
        if bool(bad.any()):
            at = tuple(int(i) for i in bad.nonzero()[0])
            raise ValueError(
                f"{name}[{_shown(at)}] must be symmetric to {allowed:.2g} of its largest entry, "
                f"got a difference of {float(off[at]):.3g}; use (A + A.T) / 2 if that is meant"
            )
    if bool((off > 0).any()):
        a = (a + a.mT).div_(2)
    return _of_single(a, name) if single else a


def _of_single(a: Float64[Tensor, "... d d"], name: str) -> Float64[Tensor, "... d d"]:
    """Matrices that were float32, with the eigenvalues that are only its rounding set to 0.

    The rank rule of `spectral.ranked` with the precision of float32: without it a singular input would
    carry 1e-8 in place of 0, and its Upsilon an error of 1e-4. Gradients pass as if nothing was done.
    """
    with torch.no_grad():
        w, V = torch.linalg.eigh(a)
        low, high = w[..., 0], w.abs().amax(dim=-1)
        bad = high > CONDITION * low
        if not bool(bad.any()):
            return a
        at = tuple(int(i) for i in bad.nonzero()[0])
        floor = (w.shape[-1] * SINGLE * high)[..., None]
        lost = (w <= floor) & (w >= -SINGLE_SLACK * high[..., None])
        if float(low[at]) >= -SINGLE_SLACK * float(high[at]):
            warn(
                f"{name}[{_shown(at)}] is float32 with eigenvalues from {float(low[at]):.3g} to "
                f"{float(high[at]):.3g}, a condition number above {CONDITION:g}: float32 has rounded "
                f"the small ones, and those below {float(floor[at]):.3g} are taken for 0; give "
                "float64, or add a ridge",
            )
        clean = (V * torch.where(lost, torch.zeros_like(w), w)[..., None, :]) @ V.mT
        clean = torch.where(lost.any(dim=-1)[..., None, None], (clean + clean.mT) / 2, a)
    return a + (clean - a).detach()


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
    if tau is None or isinstance(tau, str):
        raise ValueError(f"{name} must be a number, or one a problem, got {tau!r}")
    given = tau if isinstance(tau, Tensor) else _tensor(tau, name)
    if given.is_complex() or given.dtype == torch.bool:
        raise ValueError(f"{name} must be a real number, got dtype {given.dtype}")
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
    if bool(total.isinf().any()):
        raise ValueError("weights must have a sum that float64 holds; divide them by the largest")
    if bool((total == 0).any()):
        raise ValueError("weights must not all be 0; leave them out for equal weights")
    if not torch.allclose(total, torch.ones_like(total), rtol=0, atol=1e-8):
        sums = float(total.detach().flatten()[0])
        warn(
            f"weights sum to {sums:.6g} and are divided by that",
        )
    return broadcast(w / total, torch.Size([*batch, n]), "weights")


def normalised(weights: Any) -> Any:
    """Weights that sum to 1; what is not a usable sum is left for the checks to name."""
    if weights is None:
        return None
    w = weights if isinstance(weights, torch.Tensor) else np.asarray(weights)
    if not isinstance(w, torch.Tensor) and w.dtype.kind not in "iuf":
        return weights
    total = w.sum(-1)[..., None] if w.ndim else w
    return w / total if bool((total > 0).all()) else w


def _shown(at: tuple[int, ...]) -> str:
    return ", ".join(map(str, at)) if at else "..."
