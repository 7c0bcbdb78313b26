"""Layers of pykan and efficient-kan, read by their attributes: neither package is imported."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor, nn

ROUNDING = 32
"""So many roundings of the largest knot may a uniform grid's knots be off: both packages add h k times."""


@dataclass(frozen=True)
class Imported:
    """A layer of another package as weights of ours.

    Attributes
    ----------
    spline, base
        Weights with every scale multiplied in.
    lo, hi
        The grid of each input.
    size, order
        Cells G and degree k.
    activation
        The function beside the splines.
    mask
        False where the package holds an edge at 0; None: nowhere.
    bias
        Added to the outputs; None: nothing.
    """

    spline: Float[Tensor, "out in bases"]
    base: Float[Tensor, "out in"]
    lo: Float64[Tensor, " in"]
    hi: Float64[Tensor, " in"]
    size: int
    order: int
    activation: Literal["silu"] | Callable[[Tensor], Tensor]
    mask: Bool[Tensor, "out in"] | None = None
    bias: Float[Tensor, " out"] | None = None


def read_pykan(layer: Any) -> Imported:
    """A pykan 0.2 `KANLayer`: mask (scale_base b(x) + scale_sp spline(x)), all of shape (in, out)."""
    need = ("grid", "coef", "scale_base", "scale_sp", "mask", "base_fun", "k")
    _must_have("layer", layer, "a KANLayer of pykan 0.2", need)
    lo, hi, size = _uniform(layer.grid, int(layer.k))
    coef, mask = layer.coef.detach(), layer.mask.detach()
    _must_match("coef", coef, (*mask.shape, size + int(layer.k)))
    _must_match("grid", layer.grid[:, 0], (len(mask),))
    spline = coef * (mask * layer.scale_sp.detach())[..., None]
    live = mask.T != 0
    return Imported(
        spline.transpose(0, 1).clone(), (mask * layer.scale_base.detach()).T.clone(), lo, hi, size,
        int(layer.k), _activation(layer.base_fun), None if live.all() else live.clone(),
    )  # fmt: skip


def read_efficient_kan(layer: Any) -> Imported:
    """efficient-kan's `KANLinear`: base_weight act(x) + spline_weight * spline_scaler times the bases."""
    need = ("grid", "base_weight", "spline_weight", "spline_order", "base_activation")
    _must_have("layer", layer, "a KANLinear of efficient-kan", need)
    order = int(layer.spline_order)
    lo, hi, size = _uniform(layer.grid, order)
    base, spline = layer.base_weight.detach(), layer.spline_weight.detach()
    _must_match("spline_weight", spline, (*base.shape, size + order))
    _must_match("grid", layer.grid[:, 0], (base.shape[1],))
    if getattr(layer, "enable_standalone_scale_spline", hasattr(layer, "spline_scaler")):
        spline = spline * layer.spline_scaler.detach()[..., None]
    return Imported(
        spline.clone(), base.clone(), lo, hi, size, order, _activation(layer.base_activation)
    )


def read_pykan_model(model: Any) -> list[Imported]:
    """The layers of a pykan 0.2 model; the affine maps of its nodes become weights and biases."""
    need = (
        "act_fun", "symbolic_fun", "symbolic_enabled", "width", "input_id",
        "node_scale", "node_bias", "subnode_scale", "subnode_bias",
    )  # fmt: skip
    _must_have("model", model, "a KAN of pykan 0.2", need)
    for at, width in enumerate(model.width):
        if isinstance(width, Sequence) and width[1]:
            raise ValueError(
                f"model has {width[1]} multiplication nodes in layer {at}, which KAN does not have; import "
                "its layers one by one with KANLinear.from_pykan"
            )
    for at, symbolic in enumerate(model.symbolic_fun):
        if model.symbolic_enabled and bool((symbolic.mask != 0).any()):
            raise ValueError(
                f"model has symbolic functions in layer {at}, which KAN does not have; import its layers one "
                "by one with KANLinear.from_pykan, which reads the splines"
            )
    first = [int(i) for i in model.input_id]
    if first != list(range(len(first))):
        raise ValueError(
            f"model reads the columns {first} (input_id) of its input; KAN reads all: call "
            "KANLinear.from_pykan on its layers and pass it these columns"
        )
    found = []
    nodes = zip(
        model.act_fun, model.node_scale, model.node_bias, model.subnode_scale, model.subnode_bias,
        strict=True,
    )  # fmt: skip
    for layer, scale, bias, subscale, subbias in nodes:
        one = read_pykan(layer)
        s, b = (scale * subscale).detach(), (scale * subbias + bias).detach()
        found.append(
            replace(
                one,
                spline=one.spline * s[:, None, None],
                base=one.base * s[:, None],
                bias=b.clone() if bool((b != 0).any()) else None,
            )
        )
    return found


def read_efficient_kan_model(model: Any) -> list[Imported]:
    """The layers of efficient-kan's `KAN`."""
    _must_have("model", model, "a KAN of efficient-kan", ("layers",))
    return [read_efficient_kan(layer) for layer in model.layers]


def _must_have(name: str, given: Any, what: str, attributes: Sequence[str]) -> None:
    missing = [a for a in attributes if not hasattr(given, a)]
    if missing:
        raise ValueError(
            f"{name} must be {what}, got {type(given).__name__} without {', '.join(missing)}"
        )


def _must_match(name: str, given: Tensor, shape: tuple[int, ...]) -> None:
    if tuple(given.shape) != shape:
        raise ValueError(
            f"layer.{name} must have shape {shape} by its other weights, got {tuple(given.shape)}"
        )


def _uniform(
    knots: Float[Tensor, "in knots"], order: int
) -> tuple[Float64[Tensor, " in"], Float64[Tensor, " in"], int]:
    """The range of each input and the number of cells of extended knots that are evenly spaced."""
    if order < 1 or knots.ndim != 2 or knots.shape[1] < 2 * order + 2:
        raise ValueError(
            f"layer.grid must be (in, G + 2 k + 1) with G, k >= 1, got shape {tuple(knots.shape)} and k = "
            f"{order}"
        )
    eps = torch.finfo(knots.dtype).eps
    t = knots.detach().double()
    size = t.shape[1] - 1 - 2 * order
    lo, hi = t[:, order], t[:, order + size]
    h = (hi - lo) / size
    steps = torch.arange(t.shape[1], dtype=torch.float64, device=t.device) - order
    off = (t - (lo[:, None] + h[:, None] * steps)).abs().amax(1)
    room = ROUNDING * eps * t.abs().amax(1)
    # Not <= so that a NaN is refused.
    wrong = ~((h > 0) & (off <= room))
    if wrong.any():
        i = int(wrong.nonzero()[0])
        raise ValueError(
            f"layer.grid must be uniform, got knots of input {i} up to {float(off[i] / h[i].abs()):.2g} "
            "cells off an even spacing; train with update_grid=False or grid_eps=1, or fit a new KANLinear "
            "to its outputs"
        )
    return lo.clone(), hi.clone(), size


def _activation(given: Any) -> Any:
    if isinstance(given, nn.SiLU) or given is nn.functional.silu:
        return "silu"
    # A module would be shared with the source, its parameters too.
    return copy.deepcopy(given) if isinstance(given, nn.Module) else given
