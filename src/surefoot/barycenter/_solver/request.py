"""What `suot_barycenter` is asked, checked, with the batch flattened to one dimension."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float64, Inexact
from torch import Tensor

from surefoot._numerics.checks import check_choice
from surefoot.barycenter._chord.hermitian import fault, is_complex
from surefoot.barycenter._chord.regular import regular
from surefoot.barycenter._solver.checks import (
    SMALLEST,
    as_covariances,
    as_float64,
    as_tau,
    as_weights,
    broadcast,
    dtype_of,
)
from surefoot.barycenter._spectral.ranks import ranked

MASSES = ("fixed", "free")


@dataclass(frozen=True)
class Request:
    """The caller's problem, checked, with the batch flattened to one dimension."""

    covs: Inexact[Tensor, "b n d d"]
    means: Float64[Tensor, "b n d"] | None
    weights: Float64[Tensor, "b n"]
    tau: Float64[Tensor, "b"]
    mass_tau: Float64[Tensor, "b"] | None
    free: bool
    shape: tuple[int, ...]
    tensors: bool
    dtype: torch.dtype
    """Of the result: that of the covariances, float32 or float64."""
    symmetric: bool = True
    """To the bit; else to rounding, as they were given."""

    def symmetrised(self) -> Request:
        """With covariances that are symmetric to the bit."""
        if self.symmetric:
            return self
        return replace(self, covs=(self.covs + self.covs.mH) / 2, symmetric=True)

    def one(self, i: int) -> Request:
        """Problem i of the batch, alone."""
        at = slice(i, i + 1)
        return replace(
            self,
            covs=self.covs[at],
            means=None if self.means is None else self.means[at],
            weights=self.weights[at],
            tau=self.tau[at],
            mass_tau=None if self.mass_tau is None else self.mass_tau[at],
        )

    def joint_range(self) -> tuple[Float64[Tensor, "b d d"], Bool[Tensor, "b d"]]:
        """Eigenvectors of the weighted mean input, and which of them span the joint range."""
        mean = torch.einsum("bn,bnij->bij", self.weights, self.covs)
        w, V = torch.linalg.eigh(mean)
        # The null spaces of float32 inputs agree to float32 only.
        return V, ranked(w.clamp(min=0), torch.finfo(self.dtype).eps) > 0


def read_request(
    covs: Any, means: Any, weights: Any, tau: Any, mass: str, mass_tau: Any
) -> Request:
    """Check what `suot_barycenter` was given; each ValueError says what is wrong."""
    check_choice("mass", mass, MASSES)
    if isinstance(covs, Tensor):
        covs = covs.resolve_conj()
    tensors = any(isinstance(x, Tensor) for x in (covs, means, weights))
    if hasattr(covs, "__len__") and not isinstance(covs, Tensor) and len(covs) == 0:
        raise ValueError("covs must hold at least one covariance, got none")
    if not isinstance(covs, Tensor) and is_complex(covs):
        covs = np.asarray(covs)
    found = regular(covs)
    if found is not None:
        A, symmetric = torch.from_numpy(found[0]), found[1]
    elif is_complex(covs):
        raise fault(covs)
    else:
        A, symmetric = as_covariances(covs, "covs").detach(), True
    plain = weights is None and means is None and mass_tau is None and mass == "fixed"
    if plain and found is not None and A.ndim == 3 and type(tau) is float and tau > 0:
        # What there is to check has been checked, and for small problems the rest is half of the time.
        return _plain(A, tau, tensors, symmetric)
    if A.ndim < 3 or A.shape[-3] == 0:
        raise ValueError(f"covs must have shape (..., n, d, d) with n >= 1, got {tuple(A.shape)}")
    largest = 1.0 if found is not None else float(A.diagonal(dim1=-2, dim2=-1).amax())
    if largest != 0 and not SMALLEST < abs(largest) < 1 / SMALLEST:
        raise ValueError(
            f"covs must have variances between {SMALLEST:g} and {1 / SMALLEST:g}, whose squares are numbers "
            f"too, got {largest:.3g}; change the unit"
        )
    *batch, n, d, _ = A.shape
    shape = torch.Size(batch)
    lam = as_weights(weights, n, shape).detach().to(A.device)
    a = None
    if means is not None:
        a = as_float64(means, "means").detach().to(A.device)
        if a.shape != (*batch, n, d):
            raise ValueError(
                f"means must have shape {(*batch, n, d)} for covs of shape {tuple(A.shape)}, "
                f"got {tuple(a.shape)}"
            )
        a = a.reshape(-1, n, d)
    A = A.reshape(-1, n, d, d)
    if isinstance(tau, str):
        if tau != "auto":
            raise ValueError(f'tau must be a number, one a problem, or "auto", got {tau!r}')
        traces = A.diagonal(dim1=-2, dim2=-1).real.sum(dim=-1)
        t = (lam.reshape(-1, n) * traces).sum(dim=-1) / d
        if bool((t <= 0).any()):
            raise ValueError(
                'covs must hold an input that is not 0 for tau="auto"; give tau a number'
            )
    else:
        t = broadcast(as_tau(tau, zero=True).detach().to(A.device), shape, "tau").reshape(-1)
    free, temperature = _temperature(mass, mass_tau, t, shape)
    return Request(
        A, a, lam.reshape(-1, n), t, temperature, free, tuple(batch), tensors, dtype_of(covs), symmetric,
    )  # fmt: skip


def _plain(A: Inexact[Tensor, "n d d"], tau: float, tensors: bool, symmetric: bool) -> Request:
    n = len(A)
    lam = torch.from_numpy(np.full((1, n), 1 / n))
    t, temperature = (torch.from_numpy(np.array([x])) for x in (tau, np.inf))
    return Request(A[None], None, lam, t, temperature, False, (), tensors, torch.float64, symmetric)


def _temperature(
    mass: str, mass_tau: Any, t: Tensor, shape: torch.Size
) -> tuple[bool, Tensor | None]:
    """Whether the mass is free after all, and its temperature; None is the median's."""
    if mass == "fixed":
        if mass_tau is not None:
            raise ValueError(
                'mass_tau is the temperature of mass="free"; leave it out for fixed mass'
            )
        return False, t.new_full(t.shape, torch.inf)
    if mass_tau is None:
        temperature = t
    elif isinstance(mass_tau, str):
        if mass_tau != "median":
            raise ValueError(f'mass_tau must be None, a number or "median", got {mass_tau!r}')
        return True, None
    else:
        temperature = as_tau(mass_tau, "mass_tau").detach().to(t.device)
        temperature = broadcast(temperature, shape, "mass_tau").reshape(-1)
    # Infinite temperature gives every input its whole mass: that is fixed mass.
    return not bool(temperature.isinf().all()), temperature
