"""The means of Gaussians: their cost is quadratic and separates from the covariances.

W = (I + 2/tau A)^-1 = tau/2 (A + tau/2 I)^-1; the mean cost is (b-a)^T W (b-a). At tau = inf, W = I; at
tau = 0 the barycenter's mean is the one weighted by precisions. Derived here.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor


def _solve(
    A: Float64[Tensor, "... d d"], x: Float64[Tensor, "... d"], tau: Tensor
) -> Float64[Tensor, "... d"]:
    half = tau[..., None, None] / 2
    M = A / half + torch.eye(A.shape[-1], dtype=A.dtype, device=A.device)
    shape = np.broadcast_shapes((*M.shape[:-1], 1), (*x.shape, 1))
    solved: Tensor = torch.linalg.solve(M, x[..., None].expand(shape))
    return solved[..., 0]


def mean_cost(
    A: Float64[Tensor, "... d d"], delta: Float64[Tensor, "... d"], tau: Float64[Tensor, "..."]
) -> Float64[Tensor, "..."]:
    """(b-a)^T W (b-a) for delta = b - a; differentiable."""
    if bool(tau.isinf().all()):
        return (
            (delta * delta).sum(dim=-1).expand(np.broadcast_shapes(A.shape[:-2], delta.shape[:-1]))
        )
    return (delta * _solve(A, delta, tau)).sum(dim=-1)


def relaxed_mean(
    A: Float64[Tensor, "... d d"], delta: Float64[Tensor, "... d"], tau: Float64[Tensor, "..."]
) -> tuple[Tensor, Tensor, Tensor]:
    """How far the mean of the input moves, the squared way that is left, and the KL price of the move."""
    if bool(tau.isinf().all()):
        zero = torch.zeros_like(delta)
        return zero, (delta * delta).sum(dim=-1), zero[..., 0]
    left = _solve(A, delta, tau)
    moved = delta - left
    return moved, (left * left).sum(dim=-1), (left * moved).sum(dim=-1) / tau


def barycenter_mean(
    covs: Float64[Tensor, "*b n d d"],
    means: Float64[Tensor, "*b n d"],
    weights: Float64[Tensor, "*b n"],
    tau: Float64[Tensor, "*b"],
) -> Float64[Tensor, "*b d"]:
    """(sum lam_i W_i)^-1 sum lam_i W_i a_i: independent of the covariance of the barycenter."""
    if bool(tau.isinf().all()):
        return (weights[..., None] * means).sum(dim=-2)
    W = mean_maps(covs, tau)
    return weighted_mean(W, means, weights)


def mean_maps(
    covs: Float64[Tensor, "*b n d d"], tau: Float64[Tensor, "*b"]
) -> Float64[Tensor, "*b n d d"]:
    """W_i = (I + 2/tau A_i)^-1."""
    eye = torch.eye(covs.shape[-1], dtype=covs.dtype, device=covs.device)
    if bool(tau.isinf().all()):
        return eye.expand_as(covs)
    W: Tensor = torch.linalg.inv(covs / (tau[..., None, None, None] / 2) + eye)
    return W


def weighted_mean(
    W: Float64[Tensor, "*b n d d"],
    means: Float64[Tensor, "*b n d"],
    weights: Float64[Tensor, "*b n"],
) -> Float64[Tensor, "*b d"]:
    """(sum lam_i W_i)^-1 sum lam_i W_i a_i."""
    V = weights[..., None, None] * W
    solved: Tensor = torch.linalg.solve(V.sum(dim=-3), (V @ means[..., None]).sum(dim=-3))
    return solved[..., 0]


def weighted_median(
    values: Float64[Tensor, "*b n"], weights: Float64[Tensor, "*b n"]
) -> Float64[Tensor, "*b"]:
    """The median where each value stands as often as its weight says; weights sum to 1.

    As of copies: the middle one, or the mean of both middle ones where half the weight lies below.
    """
    order = torch.where(weights > 0, values, torch.inf).argsort(dim=-1, stable=True)
    rank = weights.gather(-1, order).cumsum(dim=-1)
    rank = rank / rank[..., -1:]
    # Whole weights divided by their sum meet 1/2 to rounding only.
    slack = 4 * torch.finfo(rank.dtype).eps * values.shape[-1]
    low = (rank < 0.5 - slack).sum(dim=-1, keepdim=True)
    high = (rank <= 0.5 + slack).sum(dim=-1, keepdim=True)
    ends = values.gather(-1, order.gather(-1, torch.cat([low, high], dim=-1)))
    return ends.mean(dim=-1)
