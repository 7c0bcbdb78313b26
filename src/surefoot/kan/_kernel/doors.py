"""Which road a layer takes, so that every transform of torch gets the same numbers or one clear refusal."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from surefoot.kan._basis.edge import EdgeRule
from surefoot.kan._kernel import build, torch_path
from surefoot.kan._kernel.function import SplineFunction
from surefoot.kan._kernel.operator import kan_layer

Kernel = Literal["auto", "torch", "c"]


def transformed() -> bool:
    """Whether torch.func (vmap, grad, jvp, ..) is at work.

    torch has no public name for it.
    """
    return torch._C._functorch.peek_interpreter_stack() is not None


def watched() -> bool:
    """Whether values may be read: neither compiled, nor exported, nor transformed."""
    return not (torch.compiler.is_compiling() or exporting() or transformed())


def exporting() -> bool:
    """Whether torch.export traces; where torch cannot tell it from compiling, compiling counts."""
    told = getattr(torch.compiler, "is_exporting", torch.compiler.is_compiling)
    return bool(told())


def native_possible(rule: EdgeRule, x: Tensor) -> bool:
    """Whether the C kernel computes such a layer at all."""
    return rule.basis == "bspline" and x.device.type == "cpu" and x.dtype == torch.float32


def spline_layer(
    rule: EdgeRule,
    x: Float[Tensor, "n in"],
    weight: Float[Tensor, "lines out"],
    lo: Float[Tensor, " in"],
    hi: Float[Tensor, " in"],
    kernel: Kernel,
    higher_order: bool,
) -> tuple[Float[Tensor, "n out"], list[int] | None]:
    """y; and, where the kernel counted, inputs outside their grid and inputs that are not finite.

    The order of the doors matters. Under torch.func a custom operator has no forward mode and gives zeros
    without a word (torch 2.13), and a Function is refused; an exported graph has to load where surefoot is
    not installed; under torch.compile a Function would break the graph.
    """
    if higher_order or x.device.type != "cpu" or transformed() or exporting():
        return torch_path.plain(rule, x, weight, lo, hi), None
    if x.dtype not in (torch.float32, torch.float64):
        return torch_path.plain(rule, x, weight, lo, hi), None
    fast = kernel != "torch" and native_possible(rule, x) and available(rule.order, kernel)
    if torch.compiler.is_compiling():
        if not fast:
            return torch_path.plain(rule, x, weight, lo, hi), None
        return kan_layer(x, weight, lo, hi, rule.size, rule.order, rule.silu, rule.policy), None
    tally = [0, 0] if fast else None
    y: Tensor = SplineFunction.apply(x.contiguous(), weight.contiguous(), lo, hi, rule, tally)  # type: ignore[no-untyped-call]
    return y, tally


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def available(order: int, kernel: Kernel) -> bool:
    """Whether there is a C kernel of that order; says once why not, or raises where it was asked for.

    Raises
    ------
    RuntimeError
        `kernel` is "c" and there is none.
    """
    why = build.why_not(order)
    if why is None:
        return True
    if kernel == "c":
        raise RuntimeError(f"kernel='c' cannot be had: {why}; kernel='torch' always can")
    build.tell(why)
    return False
