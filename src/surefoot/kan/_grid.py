"""Moving a layer to another grid: the same functions, as well as the new splines can say them."""

from __future__ import annotations

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from surefoot.kan._basis.edge import EdgeRule

POINTS_A_CELL = 8


def transfer(
    weight: Float[Tensor, "in bases out"],
    old: tuple[EdgeRule, Float64[Tensor, " in"], Float64[Tensor, " in"]],
    new: tuple[EdgeRule, Float64[Tensor, " in"], Float64[Tensor, " in"]],
) -> Float[Tensor, "in new_bases out"]:
    """Coefficients on the new grid, by least squares over points spread evenly in it.

    Exact where the old functions are splines of the new grid: the same range, and cells that divide the old
    ones. In float64, whatever the weight's dtype.
    """
    (before, lo, hi), (after, low, high) = old, new
    many = POINTS_A_CELL * max(before.size, after.size) + after.bases + 1
    # Splines are one function in the open cell: midpoints stay off the knots, where a step may be read on
    # either side.
    at = (torch.arange(many, dtype=torch.float64, device=weight.device) + 0.5) / many
    points = low + (high - low) * at[:, None]
    values = torch.einsum("nic,ico->ino", before(points, lo, hi), weight.double())
    bases = after(points, low, high).transpose(0, 1)
    found: Tensor = torch.linalg.lstsq(bases.cpu(), values.cpu(), driver="gelsd").solution
    return found.to(weight)


def fitted_range(
    x: Float[Tensor, "n in"], quantile: float, margin: float
) -> tuple[Float64[Tensor, " in"], Float64[Tensor, " in"]]:
    """The range of each feature between two quantiles, wider by a share of itself; a constant gets one."""
    rows = x.detach().double()
    ends = torch.tensor([quantile, 1 - quantile], dtype=torch.float64, device=x.device)
    # torch.quantile refuses more than 16 million numbers.
    lo, hi = torch.stack([torch.quantile(column[: 1 << 24], ends) for column in rows.T]).unbind(1)
    width = hi - lo
    # Narrower than the input's dtype can tell apart is a constant.
    flat = width <= 1e-6 * torch.maximum(lo.abs(), hi.abs()).clamp(min=1e-300)
    pad = torch.where(flat, torch.full_like(width, 0.5), margin * width)
    return lo - pad, hi + pad
