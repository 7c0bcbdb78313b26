"""How much each edge varies: the root mean square of its curve around the curve's mean."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor, nn

from surefoot._numerics.arguments import checked
from surefoot.kan.layer import KANLinear, OutOfGridWarning


@checked
def curve_norms(
    layer: KANLinear, x: Float[Tensor, "n in"] | None = None
) -> Float64[Tensor, "out in"]:
    """The root mean square of each edge's curve around its mean, in the units of the outputs.

    Parameters
    ----------
    layer
        Base included, edges that its mask removes are 0.
    x
        Inputs of the layer, over which is averaged; without them every point of the grid counts the same.

    Raises
    ------
    ValueError
        x is no input of the layer; or there is none and the edges have no grid of their own: basis
        "chebyshev", and "rbf" with a base, whose splines and base see different inputs.
    """
    return edge_moments(layer, x)[1]


def edge_moments(
    layer: KANLinear, x: Float[Tensor, "n in"] | None
) -> tuple[Float64[Tensor, "out in"], Float64[Tensor, "out in"]]:
    """The mean of each edge's curve, and its root mean square around it."""
    splined, plain, share = _points(check_layer(layer), x)
    act = layer.base_activation
    bases = layer.rule.bases
    weight = layer.live_weight().detach().double()
    means, norms = [], []
    with torch.no_grad():
        for i in range(layer.in_features):
            lo, hi = layer.grid_lo[i : i + 1], layer.grid_hi[i : i + 1]
            curves = (
                layer.rule(splined[:, i : i + 1], lo, hi)[:, 0, :]
                @ weight[i * bases : (i + 1) * bases]
            )
            if act is not None:
                curves = curves + torch.outer(
                    act(plain[:, i]), weight[layer.in_features * bases + i]
                )
            mean = share @ curves
            means.append(mean)
            norms.append((share @ (curves - mean) ** 2).sqrt())
    return torch.stack(means, 1), torch.stack(norms, 1)


def check_layer(given: object) -> KANLinear:
    """A `KANLinear`, and nothing else."""
    if not isinstance(given, KANLinear):
        raise ValueError(f"layer must be a KANLinear, got {type(given).__name__}")
    return given


def inputs_of(
    modules: Sequence[nn.Module], x: Float[Tensor, "n in"]
) -> list[Float[Tensor, "n width"]]:
    """What each of several modules gets, and what the last one returns; counters of the layers stay."""
    got = [x]
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", OutOfGridWarning)
        for module in copy.deepcopy(list(modules)):
            got.append(module(got[-1]))
    return got


def _points(
    layer: KANLinear, x: Tensor | None
) -> tuple[Float64[Tensor, "n in"], Float64[Tensor, "n in"], Float64[Tensor, " n"]]:
    """What the splines see, what the base sees, and how much each row counts."""
    if x is None:
        basis = layer.rule.basis
        if basis == "chebyshev" or (basis == "rbf" and layer.base_activation is not None):
            raise ValueError(f"x must be given: edges of basis={basis!r} have no grid of their own")
        # Exact for splines; four nodes more for the base.
        node, weight = np.polynomial.legendre.leggauss(layer.spline_order + 4)
        cell = (np.arange(layer.grid_size)[:, None] + (node + 1) / 2).ravel() / layer.grid_size
        at = torch.from_numpy(cell).to(layer.grid_lo.device)[:, None]
        x = layer.grid_lo + (layer.grid_hi - layer.grid_lo) * at
        share = torch.from_numpy(np.tile(weight / 2, layer.grid_size) / layer.grid_size).to(x)
        return x, x, share
    rows = checked_rows(x, layer.in_features).to(layer.grid_lo)
    splined = rows
    if layer.norm is not None:
        splined = copy.deepcopy(layer.norm).double()(rows).detach()
    return (
        splined,
        rows,
        torch.full((len(rows),), 1 / len(rows), dtype=rows.dtype, device=rows.device),
    )


def checked_rows(x: Tensor, width: int) -> Tensor:
    """Rows of finite numbers of a width, at least one."""
    if not isinstance(x, Tensor) or x.ndim != 2 or x.shape[1] != width or not len(x):
        shape = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__
        raise ValueError(f"x must be a tensor of rows of {width} columns, got {shape}")
    if not torch.isfinite(x).all():
        raise ValueError("x must be finite, got NaN or infinity")
    return x.detach()
