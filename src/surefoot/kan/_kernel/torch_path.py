"""The layer by torch's own operations: the one that every transform understands, and one in small pieces."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from surefoot.kan._basis.edge import EdgeRule

PIECE = 1 << 17
"""Features held at once: half a megabyte of float32, about a second-level cache."""


def plain(
    rule: EdgeRule,
    x: Float[Tensor, "n in"],
    weight: Float[Tensor, "lines out"],
    lo: Float[Tensor, " in"],
    hi: Float[Tensor, " in"],
) -> Float[Tensor, "n out"]:
    """Features times weight; differentiable to any order, under any transform, on any device."""
    return rule.features(x, lo, hi) @ weight


def _pieces(rule: EdgeRule, x: Tensor) -> int:
    return max(16, PIECE // max(1, rule.lines(x.shape[1])))


def forward(
    rule: EdgeRule, x: Tensor, weight: Tensor, lo: Tensor, hi: Tensor
) -> Float[Tensor, "n out"]:
    """The same, features of a few rows at a time."""
    y = weight.new_empty(x.shape[0], weight.shape[1])
    rows = _pieces(rule, x)
    for a in range(0, x.shape[0], rows):
        torch.mm(rule.features(x[a : a + rows], lo, hi), weight, out=y[a : a + rows])
    return y


def backward(
    rule: EdgeRule,
    x: Tensor,
    weight: Tensor,
    lo: Tensor,
    hi: Tensor,
    grad: Tensor,
    wants: tuple[bool, bool],
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of x and of the weight, where wanted; features are computed a second time."""
    gx = torch.empty_like(x) if wants[0] else None
    gw = torch.zeros_like(weight) if wants[1] else None
    rows = _pieces(rule, x)
    for a in range(0, x.shape[0], rows):
        some, g = x[a : a + rows], grad[a : a + rows]
        if gx is None:
            features = rule.features(some, lo, hi)
        else:
            with torch.enable_grad():
                some = some.detach().requires_grad_()
                features = rule.features(some, lo, hi)
            (gx[a : a + rows],) = torch.autograd.grad(features, some, g @ weight.T)
        if gw is not None:
            gw.addmm_(features.detach().T, g)
    return gx, gw
