"""The kernel as an operator that torch.compile keeps whole: surefoot::kan_layer."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

from surefoot.kan._basis.bspline import Policy
from surefoot.kan._basis.edge import EdgeRule
from surefoot.kan._kernel import native


def _rule(size: int, order: int, silu: bool, policy: str) -> EdgeRule:
    return EdgeRule("bspline", size, order, silu, cast(Policy, policy))


SETTINGS = "int size, int order, bool silu, str policy"
GIVEN = "Tensor x, Tensor weight, Tensor lo, Tensor hi"


# Schemas are written out: torch would read them off annotations, which a type checker's wrapper hides.
@torch.library.custom_op(
    "surefoot::kan_layer", mutates_args=(), schema=f"({GIVEN}, {SETTINGS}) -> Tensor"
)
def kan_layer(
    x: Tensor, weight: Tensor, lo: Tensor, hi: Tensor, size: int, order: int, silu: bool, policy: str
) -> Tensor:  # fmt: skip
    """The layer of a two-dimensional x."""
    rule = _rule(size, order, silu, policy)
    return native.forward(rule, x.contiguous(), weight.contiguous(), lo, hi)[0]


@torch.library.custom_op(
    "surefoot::kan_layer_backward",
    mutates_args=(),
    schema=f"({GIVEN}, Tensor grad, {SETTINGS}) -> (Tensor, Tensor)",
)
def kan_layer_backward(
    x: Tensor, weight: Tensor, lo: Tensor, hi: Tensor, grad: Tensor, size: int, order: int, silu: bool,
    policy: str,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Both gradients. It has none of its own: asking for one is an error, where silence would be wrong."""
    gx, gw = native.backward(
        _rule(size, order, silu, policy), x.contiguous(), weight.contiguous(), lo, hi,
        grad.contiguous(), (True, True),
    )  # fmt: skip
    assert gx is not None
    assert gw is not None
    return gx, gw


@kan_layer.register_fake
def _(x: Tensor, weight: Tensor, *rest: Any) -> Tensor:
    return x.new_empty(x.shape[0], weight.shape[1])


@kan_layer_backward.register_fake
def _(x: Tensor, weight: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x), torch.empty_like(weight)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:4])
    ctx.settings = inputs[4:]


def _differentiate(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    return *kan_layer_backward(*ctx.saved_tensors, grad, *ctx.settings), *[None] * 6


kan_layer.register_autograd(_differentiate, setup_context=_keep)
