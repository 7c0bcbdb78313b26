"""The tangent matrix of an infinitely wide two-layer network, by Gauss-Legendre between the knots.

K(x, x') = E sum_l b_l(z) b_l(z') + K_B(x, x') E sum_l b_l'(z) b_l'(z') with (z, z') normal of covariance
s^2 [[K_B(x, x), K_B(x, x')], [., K_B(x', x')]] and c ~ N(0, 1). The bases are polynomials between the
knots and have kinks there, so that Hermite rules over the whole line lose what these keep.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from surefoot.kan._basis.bspline import Grid

# Beyond this many standard deviations a normal has 1e-14 of its mass.
TAIL = 7.7
NODES = 6
PAIRS = 8


def infinite_gram(
    x: Float64[Tensor, "n d"], grid: Grid, init_scale: float
) -> Float64[Tensor, "n n"]:
    """The limit of the tangent matrix at initialisation as the width grows.

    Relative to 1e-10; between points that nearly coincide to 1e-6, and for degrees 2 and 1, whose slopes
    have kinks and jumps, to 1e-3 and 1e-2.
    """
    phi = grid(x).flatten(1)
    inner = phi @ phi.T
    n = len(x)
    rows, columns = torch.triu_indices(n, n, device=x.device)
    found = torch.cat(
        [
            _pairs(inner[i, i], inner[i, j], inner[j, j], grid, init_scale)
            for i, j in zip(rows.split(PAIRS), columns.split(PAIRS), strict=True)
        ]
    )
    gram = torch.zeros_like(inner)
    gram[rows, columns] = found
    gram[columns, rows] = found
    return gram


def _pairs(
    left: Float64[Tensor, " p"],
    cross: Float64[Tensor, " p"],
    right: Float64[Tensor, " p"],
    grid: Grid,
    init_scale: float,
) -> Float64[Tensor, " p"]:
    deviation = init_scale * left.sqrt()
    ratio = torch.where(left > 0, cross / left, torch.zeros_like(left))
    # Rounding makes a variance of coinciding points negative.
    spread = init_scale * (right - ratio * cross).clamp_min(0).sqrt()
    # Where z' nearly follows z, the kinks of z' are kinks in z.
    knots = _knots(grid, left)
    kinks = knots / torch.where(ratio == 0, torch.ones_like(ratio), ratio)[:, None]
    z, weight = _normal_nodes(torch.zeros_like(left), deviation, knots, kinks)
    mean = ratio[:, None] * z
    other, other_weight = _normal_nodes(mean, spread[:, None].expand_as(z), knots, None)
    total = torch.zeros_like(left)
    for derivative, factor in ((0, torch.ones_like(cross)), (1, cross)):
        mean = torch.einsum("pzt,pztc->pzc", other_weight, grid(other, derivative))
        total += factor * torch.einsum("pz,pzc,pzc->p", weight, grid(z, derivative), mean)
    return total


def _knots(grid: Grid, like: Tensor) -> Float64[Tensor, " knots"]:
    return grid.lo + grid.h * torch.arange(-grid.order, grid.size + grid.order + 1).to(like)


def _normal_nodes(
    mean: Float64[Tensor, "*n"],
    deviation: Float64[Tensor, "*n"],
    knots: Float64[Tensor, " knots"],
    kinks: Float64[Tensor, "*n kinks"] | None,
) -> tuple[Float64[Tensor, "*n nodes"], Float64[Tensor, "*n nodes"]]:
    """Nodes and weights of N(mean, deviation^2), broken at knots, kinks and every standard deviation.

    Pieces beyond the tail have no length, and none reaches outside the knots, where all bases are 0.
    """
    width = deviation.clamp_min(torch.finfo(mean.dtype).tiny)[..., None]
    breaks = (knots - mean[..., None]) / width
    low, high = breaks[..., :1], breaks[..., -1:]
    if kinks is not None:
        breaks = torch.cat([breaks, (kinks - mean[..., None]) / width], -1)
    whole = torch.arange(-math.ceil(TAIL), math.ceil(TAIL) + 1).to(mean).expand(*mean.shape, -1)
    ends = torch.cat([breaks, whole], -1).clamp(low, high).clamp(-TAIL, TAIL).sort(-1).values
    at, by = np.polynomial.legendre.leggauss(NODES)
    half = (ends[..., 1:] - ends[..., :-1]) / 2
    middle = (ends[..., 1:] + ends[..., :-1]) / 2
    t = (middle[..., None] + half[..., None] * torch.from_numpy(at).to(mean)).flatten(-2)
    density = torch.exp(-(t**2) / 2) / math.sqrt(2 * math.pi)
    weights = (half[..., None] * torch.from_numpy(by).to(mean)).flatten(-2) * density
    return mean[..., None] + deviation[..., None] * t, weights
