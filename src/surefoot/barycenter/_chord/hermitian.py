"""Complex Hermitian covariances: what they may be, and what can be asked of them."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from surefoot.barycenter._chord.block import adjoint
from surefoot.barycenter._solver.checks import ASYMMETRY, SMALLEST

STARTS = ("euclid", "identity")


def is_complex(x: Any) -> bool:
    """Whether numbers are complex by their type; what is no array at all is for other checks."""
    if isinstance(x, Tensor):
        return x.is_complex()
    try:
        return np.iscomplexobj(x)
    except ValueError:
        return False


def fault(covs: Any) -> ValueError:
    """Why these complex covariances were not taken for regular ones."""
    if isinstance(covs, Tensor) and (covs.requires_grad or covs.device.type != "cpu"):
        return ValueError(
            "covs must be on the CPU and need no gradient where they are complex; detach them"
        )
    x = np.asarray(covs)
    if x.ndim < 3 or x.shape[-1] != x.shape[-2] or not x.size:
        return ValueError(f"covs must have shape (..., n, d, d) with n, d >= 1, got {x.shape}")
    if x.dtype != np.complex128:
        return ValueError(
            f"covs must be complex128 where they are complex, got {x.dtype}, whose rounding would be "
            "taken for small eigenvalues; astype(complex128) if that is meant"
        )
    bad = ~np.isfinite(x)
    if bad.any():
        at = tuple(int(i) for i in np.argwhere(bad)[0])
        return ValueError(
            f"covs must be finite, got {x[at]} at index {at}; drop or repair that input"
        )
    off = np.abs(x - adjoint(x)).max(axis=(-2, -1))
    crooked = off > ASYMMETRY * np.abs(x).max(axis=(-2, -1))
    if crooked.any():
        at = tuple(int(i) for i in np.argwhere(crooked)[0])
        return ValueError(
            f"covs[{', '.join(map(str, at))}] must be Hermitian to {ASYMMETRY:.2g} of its largest "
            f"entry, got a difference of {float(off[at]):.3g} to its conjugate transpose; use "
            "(A + A.conj().T) / 2 if that is meant"
        )
    top = np.diagonal(x, axis1=-2, axis2=-1).real.max(axis=-1)
    return ValueError(
        "covs must be positive definite where they are complex, with variances between "
        f"{SMALLEST:g} and {1 / SMALLEST:g}, got inputs with the largest variance {top.min():.3g}"
    )


def singular() -> ValueError:
    """For complex inputs that rounding makes singular."""
    return ValueError(
        "covs must be of full rank to rounding where they are complex; add a ridge, or give the real form "
        "[[A.real, -A.imag], [A.imag, A.real]], which may be singular"
    )


def check_options(method: str, init: Any, means: Any, mass: str, sqrt: str) -> None:
    """Refuse what complex covariances cannot be asked for."""
    given = {
        "method": (method, method in ("bb", "eggd"), "'bb' or 'eggd'"),
        "mass": (mass, mass == "fixed", "'fixed'"),
        "sqrt": (sqrt, sqrt == "eigh", "'eigh'"),
        "init": (init, not isinstance(init, str) or init in STARTS, "'euclid', 'identity' or an array"),
        "means": ("means", means is None, "None"),
    }  # fmt: skip
    for name, (value, allowed, what) in given.items():
        if not allowed:
            raise ValueError(
                f"{name} must be {what} where covs (C) are complex, got {value!r}; for all others give the "
                "real form [[A.real, -A.imag], [A.imag, A.real]]"
            )
