"""Calls of the C kernel: its workspace, and its rows spread over threads."""

from __future__ import annotations

import functools
import threading
from ctypes import byref, c_int64

import torch
from torch import Tensor

from surefoot._native.threads import shared
from surefoot.kan._basis.edge import EdgeRule
from surefoot.kan._kernel.build import Shape, kernel

POLICIES = {"zero": 0, "clamp": 1, "linear": 2}
ROWS_A_THREAD = 500
"""Fewer rows than that are not worth a thread."""
ALIGNED = 64

_own = threading.local()
_Counts = c_int64 * 2


def _room(floats: int) -> int:
    """The address of that many floats for this thread: kept, grown, and freed with the thread."""
    held: Tensor | None = getattr(_own, "room", None)
    if held is None or held.numel() < floats + ALIGNED // 4:
        # Said in full: the process may have other defaults, and C writes into it.
        _own.room = held = torch.empty(floats + ALIGNED // 4, dtype=torch.float32, device="cpu")
    at = held.data_ptr()
    return at + -at % ALIGNED


class _Plan:
    """The kernel of one shape of layer, and how much room it takes."""

    def __init__(
        self, order: int, size: int, silu: bool, policy: str, in_features: int, out_features: int
    ) -> None:
        library = kernel(order)
        self.forward, self.backward = library.kan_forward, library.kan_backward
        shape = Shape(in_features, out_features, size, silu, POLICIES[policy])
        self.shape = byref(shape)
        self.floats = tuple(library.kan_floats(shape, backward) for backward in (0, 1))


_plan = functools.lru_cache(maxsize=256)(_Plan)


def _threads(rows: int) -> int:
    """As many as `torch.get_num_threads()`, if there is work for them."""
    return 1 if rows < 2 * ROWS_A_THREAD else min(torch.get_num_threads(), rows // ROWS_A_THREAD)


def forward(
    rule: EdgeRule, x: Tensor, weight: Tensor, lo: Tensor, hi: Tensor
) -> tuple[Tensor, int, int]:
    """y, how many inputs lie outside their grid, and how many are not finite.

    All float32 on the CPU and contiguous; lo and hi float64.
    """
    rows, (inputs, out) = x.shape[0], (x.shape[1], weight.shape[1])
    plan = _plan(rule.order, rule.size, rule.silu, rule.policy, inputs, out)
    y = weight.new_empty((rows, out))
    at = lo.data_ptr(), hi.data_ptr(), x.data_ptr(), weight.data_ptr(), y.data_ptr()

    def some(a: int, b: int) -> tuple[int, int]:
        counts = _Counts()
        plan.forward(
            plan.shape, b - a, at[0], at[1], at[2] + 4 * a * inputs, at[3], at[4] + 4 * a * out,
            _room(plan.floats[0]), counts,
        )  # fmt: skip
        return counts[0], counts[1]

    found = shared(some, rows, _threads(rows))
    return y, sum(f[0] for f in found), sum(f[1] for f in found)


def backward(
    rule: EdgeRule,
    x: Tensor,
    weight: Tensor,
    lo: Tensor,
    hi: Tensor,
    grad: Tensor,
    wants: tuple[bool, bool],
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of x and of the weight, where wanted."""
    rows, (inputs, out) = x.shape[0], (x.shape[1], weight.shape[1])
    plan = _plan(rule.order, rule.size, rule.silu, rule.policy, inputs, out)
    gx = torch.empty_like(x) if wants[0] else None
    at = lo.data_ptr(), hi.data_ptr(), x.data_ptr(), weight.data_ptr(), grad.data_ptr()
    to = None if gx is None else gx.data_ptr()

    def some(a: int, b: int) -> Tensor | None:
        # Every thread sums its rows into a gradient of its own.
        gw = torch.empty_like(weight) if wants[1] else None
        plan.backward(
            plan.shape, b - a, at[0], at[1], at[2] + 4 * a * inputs, at[3], at[4] + 4 * a * out,
            None if to is None else to + 4 * a * inputs, None if gw is None else gw.data_ptr(),
            _room(plan.floats[1]),
        )  # fmt: skip
        return gw

    gw, *others = shared(some, rows, _threads(rows))
    for part in others:
        if gw is not None and part is not None:
            gw += part
    return gx, gw
