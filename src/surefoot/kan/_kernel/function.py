"""The layer as an autograd Function that keeps x alone, and is right to any order of derivative."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from surefoot.kan._basis.edge import EdgeRule
from surefoot.kan._kernel import native, torch_path


class SplineFunction(torch.autograd.Function):
    """y and, as plain numbers, how many inputs were outside their grid and how many not finite.

    With `create_graph=True` gradients are computed by torch's operations, on a graph: a Function whose
    backward pass calls a kernel would lose the graph there, and a gradient penalty would count as a
    constant, without a word (torch 2.13, with and without `once_differentiable`).
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, lo: Tensor, hi: Tensor, rule: EdgeRule, tally: list[int] | None
    ) -> Tensor:  # fmt: skip
        # Made contiguous by the caller: a copy made here would be cut off from the graph of x.
        ctx.save_for_backward(x, weight, lo, hi)
        ctx.rule, ctx.native = rule, tally is not None
        if tally is None:
            return torch_path.forward(rule, x, weight, lo, hi)
        y, *tally[:] = native.forward(rule, x, weight, lo, hi)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, lo, hi = ctx.saved_tensors
        (grad,) = grads
        wants = ctx.needs_input_grad[:2]
        # True exactly under create_graph=True.
        if torch.is_grad_enabled():
            return *_on_a_graph(ctx.rule, x, weight, lo, hi, grad, wants), None, None, None, None
        road = native if ctx.native else torch_path
        gx, gw = road.backward(ctx.rule, x, weight, lo, hi, grad.contiguous(), wants)
        return gx, gw, None, None, None, None


def _on_a_graph(
    rule: EdgeRule,
    x: Tensor,
    weight: Tensor,
    lo: Tensor,
    hi: Tensor,
    grad: Tensor,
    wants: tuple[bool, bool],
) -> list[Tensor | None]:
    # Where x depends on the weight, its part would be counted into the weight's: both are taken by new names.
    own = (x.view_as(x), weight.view_as(weight))
    asked = [t for t, wanted in zip(own, wants, strict=True) if wanted]
    found = iter(
        torch.autograd.grad(torch_path.plain(rule, *own, lo, hi), asked, grad, create_graph=True)
    )
    return [next(found) if wanted else None for wanted in wants]
