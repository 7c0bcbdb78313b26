"""tau = 0: covariance intersection, in closed form."""

from __future__ import annotations

import torch
from jaxtyping import Float64
from torch import Tensor

from surefoot.barycenter._solver.checks import check_spectrum
from surefoot.barycenter._solver.request import Request
from surefoot.barycenter._solver.solution import Solution
from surefoot.barycenter._spectral.closed_forms import spectrum
from surefoot.barycenter._spectral.ranks import inverse, ranked


def precisions(
    covs: Float64[Tensor, "b n d d"],
) -> tuple[Float64[Tensor, "b n d d"], Float64[Tensor, "b n d d"]]:
    """A^+ and the projector onto the null space of A."""
    w, V = torch.linalg.eigh(covs)
    w = ranked(w.clamp(min=0))
    off = V * (w == 0)[..., None, :].to(w.dtype)
    return (V * inverse(w)[..., None, :]) @ V.mT, off @ V.mT


def intersection(
    covs: Float64[Tensor, "b n d d"], weights: Float64[Tensor, "b n"]
) -> Float64[Tensor, "b d d"]:
    """(sum lam_i A_i^-1)^-1; with singular inputs its limit, which lives on the common range."""
    P, N = precisions(covs)
    lam = weights[..., None, None]
    total = (lam * P).sum(dim=1)
    w, V = torch.linalg.eigh((lam * N).sum(dim=1))
    # Where any input of positive weight is sure of a 0, so is the result.
    Q = V * (w.abs() <= 1e-12)[..., None, :].to(w.dtype)
    inside = Q @ Q.mT
    eye = torch.eye(covs.shape[-1], dtype=covs.dtype, device=covs.device)
    B: Tensor = torch.linalg.inv(inside @ total @ inside + (eye - inside))
    B = B - (eye - inside)
    return (B + B.mT) / 2


def intersection_mean(
    covs: Float64[Tensor, "b n d d"],
    means: Float64[Tensor, "b n d"],
    weights: Float64[Tensor, "b n"],
    B: Float64[Tensor, "b d d"],
) -> Float64[Tensor, "b d"]:
    """B sum lam_i A_i^-1 a_i, the precision-weighted mean.

    Raises ValueError where an input is singular: two of them may then contradict each other.
    """
    P, N = precisions(covs)
    if bool((N * (weights > 0)[..., None, None]).any()):
        raise ValueError("tau = 0 with means needs inputs of full rank; use a small positive tau")
    summed = (weights[..., None] * (P @ means[..., None])[..., 0]).sum(dim=1)
    return (B @ summed[..., None])[..., 0]


def divergences(
    covs: Float64[Tensor, "b n d d"], B: Float64[Tensor, "b d d"]
) -> Float64[Tensor, "b n"]:
    """KL(B || A_i) = lim Upsilon_i / tau for tau -> 0, the score that is left at tau = 0."""
    ratio = torch.linalg.solve(covs, B[:, None].expand_as(covs))
    trace = ratio.diagonal(dim1=-2, dim2=-1).sum(dim=-1)
    logdet = torch.linalg.slogdet(B)[1][:, None] - torch.linalg.slogdet(covs)[1]
    out: Tensor = (trace - covs.shape[-1] - logdet) / 2
    return out.clamp(min=0)


def intersect(request: Request) -> Solution:
    """The solution of a request at tau = 0.

    Raises ValueError for free mass, and for a batch in which only some tau are 0.
    """
    if bool((request.tau > 0).any()):
        raise ValueError("tau must be positive for every problem of a batch or 0 for all")
    if request.free:
        raise ValueError('mass="free" needs a positive tau, got 0')
    covs, weights = request.covs, request.weights
    w: Tensor = torch.linalg.eigvalsh(covs)
    check_spectrum(w, "covs")
    singular = bool((ranked(w.clamp(min=0)) == 0).any())
    B = intersection(covs, weights)
    mean = None
    if request.means is not None:
        mean = intersection_mean(covs, request.means, weights, B)
    score = torch.full_like(weights, torch.nan)
    if not singular:
        score = divergences(covs, B)
        if mean is not None and request.means is not None:
            delta = mean[:, None] - request.means
            price = (delta * (precisions(covs)[0] @ delta[..., None])[..., 0]).sum(dim=-1)
            score = score + price / 2
    zero = torch.zeros_like(B[:, 0, 0])
    return Solution(
        cov=B, mean=mean, weights=weights, upsilon=score, steps=zero.long(), converged=zero == 0,
        gap=zero, rate=lambda: zero * torch.nan, value=zero, residual=zero, temperature=zero + torch.inf,
        rank_deficient=singular, lowest=lambda: spectrum(B)[:, 0], relax=lambda: B[:, None].expand_as(covs),
        stretch=lambda: torch.ones_like(weights), history=None,
        facts=lambda: [
            {"method": "covariance intersection", "descends": False, "geodesic": False, "tau": 0.0,
             "mass": "fixed", "converged": True, "steps": 0, "rank_deficient": singular}
            for _ in covs
        ],
    )  # fmt: skip
