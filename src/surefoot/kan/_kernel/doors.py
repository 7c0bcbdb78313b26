"""Which road a layer takes, so that every transform of torch gets the same numbers or one clear refusal."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from surefoot._numerics.transforms import PLAIN, compiling, exporting, modes, tracing, transform
from surefoot.kan._basis.edge import EdgeRule
from surefoot.kan._kernel import build, native, torch_path
from surefoot.kan._kernel.function import SplineFunction
from surefoot.kan._kernel.operator import kan_layer

Kernel = Literal["auto", "torch", "c"]


def traced(*tensors: Tensor) -> bool:
    """Whether somebody has to see the operations: torch.func, an exporter, a tracer, a subclass of Tensor.

    A kernel's result would be a constant to a tracer, without a word.
    """
    if transform() is not None or exporting() or tracing():
        return True
    return not compiling() and (modes() > 0 or any(type(t) not in PLAIN for t in tensors))


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
    if higher_order or x.device.type != "cpu" or traced(x, weight):
        return torch_path.plain(rule, x, weight, lo, hi), None
    fast = kernel != "torch" and native_possible(rule, x) and available(rule.order, kernel)
    if compiling():
        if fast:
            return kan_layer(x, weight, lo, hi, rule.size, rule.order, rule.silu, rule.policy), None
        return torch_path.plain(rule, x, weight, lo, hi), None
    x, weight = x.contiguous(), weight.contiguous()
    if fast and not (torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad)):
        y, *counts = native.forward(rule, x, weight, lo, hi)
        return y, counts
    tally = [0, 0] if fast else None
    # torch gives `apply` no types.
    y = SplineFunction.apply(x, weight, lo, hi, rule, tally)  # type: ignore[no-untyped-call]
    return y, tally


# torch gives the decorator no types.
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
