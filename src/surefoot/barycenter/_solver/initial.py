"""Where the descent starts."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from surefoot.barycenter._solver.checks import as_covariances, check_spectrum
from surefoot.barycenter._solver.means import weighted_median
from surefoot.barycenter._spectral.closed_forms import Inputs, blocks, spectrum
from surefoot.barycenter._spectral.ranks import ranked

STARTS = ("euclid", "identity", "harmonic", "medoid")
FREE_STARTS = ("euclid", "harmonic", "medoid")
MEDOID_INPUTS = 64


def flattened(init: Any, batch: tuple[int, ...], count: int) -> Any:
    """A start as one matrix, or as one for each of the `count` problems of a batch in their order.

    Raises ValueError for an array with a matrix for each of something else.
    """
    try:
        shape = tuple(np.shape(init))
    except ValueError:
        # Rows of different lengths: whoever reads the numbers says so.
        return init
    if len(shape) < 2:
        return init
    if shape[:-2] not in ((), (1,), (count,), batch):
        d = shape[-1]
        raise ValueError(
            f"init must be one matrix ({d}, {d}), or one for each problem, got shape {shape}"
        )
    if len(shape) <= 3:
        return init
    return (init if isinstance(init, Tensor) else np.asarray(init)).reshape(count, *shape[-2:])


def initial(
    init: Any,
    covs: Float64[Tensor, "b n d d"],
    weights: Float64[Tensor, "b n"],
    tau: Float64[Tensor, "b"],
) -> Float64[Tensor, "b d d"]:
    """The first B of every problem.

    "euclid": weighted arithmetic mean; "identity": I; "harmonic": weighted harmonic mean; "medoid":
    the input with the smallest weighted median Upsilon to the others (among at most 64 distinct ones,
    evenly spaced);
    or an array. Raises ValueError for a start that is singular.
    """
    b, _, d, _ = covs.shape
    if isinstance(init, str):
        if init not in STARTS:
            raise ValueError(f"init must be one of {STARTS}, an array or None, got {init!r}")
        if init == "identity":
            return torch.eye(d, dtype=covs.dtype, device=covs.device).expand(b, d, d).clone()
        if init == "harmonic":
            return harmonic(covs, weights)
        if init == "medoid":
            return medoid(covs, weights, tau)
        return torch.einsum("bn,bnij->bij", weights, covs)
    B = as_covariances(init, "init").to(covs.device)
    if B.ndim > 3 or (B.ndim == 3 and B.shape[0] not in (1, b)):
        raise ValueError(
            f"init must be one matrix ({d}, {d}), or one for each problem, got shape {tuple(B.shape)}"
        )
    if B.shape[-1] != d:
        raise ValueError(f"init must have the size of the inputs, {d}, got {B.shape[-1]}")
    w = spectrum(B)
    check_spectrum(w, "init")
    if bool((ranked(w.clamp(min=0)) == 0).any()):
        raise ValueError("init must be positive definite, got a singular matrix; add a ridge")
    return B.expand(b, d, d).clone()


def harmonic(
    covs: Float64[Tensor, "b n d d"], weights: Float64[Tensor, "b n"]
) -> Float64[Tensor, "b d d"]:
    """(sum lam A^-1)^-1, of inputs lifted by 1e-6 tr/d where one of them is singular."""
    d = covs.shape[-1]
    trace = covs.diagonal(dim1=-2, dim2=-1).sum(dim=-1)
    parts = blocks(covs)
    w = torch.cat([spectrum(covs[:, part]) for part in parts], dim=1)
    singular = ((ranked(w.clamp(min=0)) == 0).any(dim=-1) & (weights > 0)).any(dim=-1)
    lift = 1e-6 * (weights * trace).sum(dim=-1) / d
    eye = torch.eye(d, dtype=covs.dtype, device=covs.device)
    ridge = (lift * singular)[:, None, None, None] * eye
    # An input of weight 0 is not there: its infinities must not come in.
    there = (weights > 0)[..., None, None]
    total = torch.zeros_like(covs[:, 0])
    for part in parts:
        inverses = torch.linalg.inv(torch.where(there[:, part], covs[:, part] + ridge, eye))
        total = total + torch.einsum("bn,bnij->bij", weights[:, part], inverses)
    B: Tensor = torch.linalg.inv((total + total.mT) / 2)
    return (B + B.mT) / 2


def medoid(
    covs: Float64[Tensor, "b n d d"], weights: Float64[Tensor, "b n"], tau: Float64[Tensor, "b"]
) -> Float64[Tensor, "b d d"]:
    """The input that is nearest to the others in the median; a singular one is mixed with the mean."""
    chosen = []
    for A, lam, t in zip(covs, weights, tau, strict=True):
        # Copies of an input are one, with their weights: so a weight is a repetition here too.
        some, lam = _distinct(A[lam > 0], lam[lam > 0])
        mean = torch.einsum("n,nij->ij", lam, some)
        if len(some) > MEDOID_INPUTS:
            at = torch.linspace(0, len(some) - 1, MEDOID_INPUTS).round().long()
            some, lam = some[at], lam[at]
        inputs = Inputs.of(some, t)
        candidates = torch.where(inputs.singular[:, None, None], 0.999 * some + 0.001 * mean, some)
        medians = [
            float(weighted_median(inputs.couple(B, keep=False).upsilon, lam)) for B in candidates
        ]
        chosen.append(candidates[min(range(len(some)), key=medians.__getitem__)])
    return torch.stack(chosen)


def _distinct(
    covs: Float64[Tensor, "n d d"], weights: Float64[Tensor, " n"]
) -> tuple[Float64[Tensor, "k d d"], Float64[Tensor, " k"]]:
    """The different inputs in order of their first appearance, and the weights of each together."""
    _, which = torch.unique(covs.flatten(1), dim=0, return_inverse=True)
    places = torch.arange(len(covs), device=covs.device)
    first = torch.full((int(which.max()) + 1,), len(covs), device=covs.device)
    first = first.scatter_reduce(0, which, places, "amin")
    together = weights.new_zeros(len(first)).index_add(0, which, weights)
    order = first.argsort()
    return covs[first[order]], together[order]
