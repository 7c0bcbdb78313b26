"""The layer by torch's own operations: the one that every transform understands, and one in small pieces."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from surefoot.kan._basis.bspline import dense_splines
from surefoot.kan._basis.edge import EdgeRule

PIECE = 1 << 18
"""Features held at once: a megabyte of float32, about a second-level cache."""


def plain(
    rule: EdgeRule,
    x: Float[Tensor, "n in"],
    weight: Float[Tensor, "lines out"],
    lo: Float[Tensor, " in"],
    hi: Float[Tensor, " in"],
) -> Float[Tensor, "n out"]:
    """Features times weight; differentiable to any order, under any transform, on any device."""
    return rule.features(x, lo, hi) @ weight


def _rows(rule: EdgeRule, x: Tensor) -> int:
    return max(16, PIECE // max(1, rule.lines(x.shape[1])))


def _by_basis(rule: EdgeRule, weight: Tensor, inputs: int) -> tuple[Tensor, Tensor]:
    """The splines' weights as one matrix a basis, and SiLU's."""
    splines = inputs * rule.bases
    return weight[:splines].view(inputs, rule.bases, -1).transpose(0, 1), weight[splines:]


def forward(
    rule: EdgeRule, x: Tensor, weight: Tensor, lo: Tensor, hi: Tensor
) -> Float[Tensor, "n out"]:
    """The same, features of a few rows at a time."""
    splines, base = _by_basis(rule, weight, x.shape[1])
    y = weight.new_zeros(x.shape[0], weight.shape[1])
    rows = _rows(rule, x)
    for some, part in zip(_split(x, rows), _split(y, rows), strict=True):
        part.addbmm_(bases_and_slopes(rule, some, lo, hi, slopes=False)[0], splines)
        if rule.silu:
            part.addmm_(torch.nn.functional.silu(some), base)
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
    splines, base = _by_basis(rule, weight, x.shape[1])
    gx = torch.empty_like(x) if wants[0] else None
    gw = torch.zeros_like(weight) if wants[1] else None
    own = None if gw is None else torch.zeros_like(splines, memory_format=torch.contiguous_format)
    rows = _rows(rule, x)
    for k, (some, g) in enumerate(zip(_split(x, rows), _split(grad, rows), strict=True)):
        features, slopes = bases_and_slopes(rule, some, lo, hi, slopes=gx is not None)
        gate = torch.sigmoid(some) if rule.silu else None
        each = g.expand(rule.bases, -1, -1)
        if gx is not None:
            part = torch.bmm(each, splines.mT).mul_(slopes).sum(0)
            if gate is not None:
                part += (g @ base.T) * (gate * (1 + some * (1 - gate)))
            gx[k * rows : k * rows + len(some)] = part
        if gw is not None and own is not None:
            own.baddbmm_(features.mT, each)
            if gate is not None:
                gw[len(gw) - len(base) :].addmm_((some * gate).T, g)
    if gw is not None and own is not None:
        _by_basis(rule, gw, x.shape[1])[0].copy_(own)
    return gx, gw


def _split(x: Tensor, rows: int) -> list[Tensor]:
    return [x[a : a + rows] for a in range(0, len(x), rows)]


def bases_and_slopes(
    rule: EdgeRule, x: Tensor, lo: Tensor, hi: Tensor, slopes: bool
) -> tuple[Float[Tensor, "bases n in"], Float[Tensor, "bases n in"]]:
    """All bases and, where wanted (else the bases again), their derivatives in x; no graph is kept."""
    if rule.basis == "bspline":
        h = (hi - lo) / rule.size
        return dense_splines(x, lo, h, rule.size, rule.order, rule.policy, slopes)
    found = rule(x, lo, hi)
    slope = rule.slopes(x, lo, hi) if slopes else found
    return found.permute(2, 0, 1), slope.permute(2, 0, 1)
