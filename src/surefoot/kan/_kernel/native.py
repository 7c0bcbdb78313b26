"""Calls of the C kernel: its workspace, and its rows spread over threads."""

from __future__ import annotations

import ctypes
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from ctypes import POINTER, byref, c_double
from itertools import pairwise

import torch
from torch import Tensor

from surefoot.kan._basis.edge import EdgeRule
from surefoot.kan._kernel.build import Layer, kernel

POLICIES = {"zero": 0, "clamp": 1, "linear": 2}
ROWS_A_THREAD = 500
"""Fewer rows than that are not worth a thread."""
ALIGNED = 64

_own = threading.local()


def _room(floats: int) -> int:
    """The address of that many floats for this thread: kept, grown, and freed with the thread."""
    held: Tensor | None = getattr(_own, "room", None)
    if held is None or held.numel() < floats + ALIGNED // 4:
        _own.room = held = torch.empty(floats + ALIGNED // 4)
    at = held.data_ptr()
    return at + -at % ALIGNED


class _Pool:
    """Threads beside the caller's; new ones after a fork, in which threads do not live on."""

    def __init__(self) -> None:
        self.pid, self.threads = -1, 0
        self.lock = threading.Lock()
        self.executor: ThreadPoolExecutor | None = None

    def __call__(self, threads: int) -> ThreadPoolExecutor:
        with self.lock:
            if self.executor is None or self.pid != os.getpid() or self.threads < threads:
                self.executor = ThreadPoolExecutor(threads, thread_name_prefix="surefoot-kan")
                self.pid, self.threads = os.getpid(), threads
            return self.executor


_pool = _Pool()


def _layer(rule: EdgeRule, x: Tensor, out: int, lo: Tensor, hi: Tensor) -> Layer:
    return Layer(
        x.shape[0], x.shape[1], out, rule.size, rule.silu, POLICIES[rule.policy],
        ctypes.cast(lo.data_ptr(), POINTER(c_double)), ctypes.cast(hi.data_ptr(), POINTER(c_double)),
    )  # fmt: skip


def _shares(rows: int) -> list[tuple[int, int]]:
    """Row ranges, one a thread of `torch.get_num_threads()`."""
    many = max(1, min(torch.get_num_threads(), rows // ROWS_A_THREAD))
    ends = [rows * k // many for k in range(many + 1)]
    return list(pairwise(ends))


def forward(
    rule: EdgeRule, x: Tensor, weight: Tensor, lo: Tensor, hi: Tensor
) -> tuple[Tensor, int, int]:
    """y, how many inputs lie outside their grid, and how many are not finite.

    All float32 on the CPU and contiguous; lo and hi float64.
    """
    library = kernel(rule.order)
    y = weight.new_empty(x.shape[0], weight.shape[1])

    def some(a: int, b: int) -> tuple[int, int]:
        layer = _layer(rule, x[a:b], weight.shape[1], lo, hi)
        counts = (ctypes.c_int64 * 2)()
        library.kan_forward(
            byref(layer), x.data_ptr() + 4 * a * x.shape[1], weight.data_ptr(),
            y.data_ptr() + 4 * a * y.shape[1], _room(library.kan_floats(byref(layer), 0)), counts,
        )  # fmt: skip
        return counts[0], counts[1]

    shares = _shares(x.shape[0])
    if len(shares) == 1:
        found = [some(*shares[0])]
    else:
        others = [_pool(len(shares) - 1).submit(some, *share) for share in shares[1:]]
        found = [some(*shares[0]), *(other.result() for other in others)]
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
    library = kernel(rule.order)
    gx = torch.empty_like(x) if wants[0] else None

    def some(a: int, b: int) -> Tensor | None:
        # Every thread sums its rows into a gradient of its own.
        gw = torch.empty_like(weight) if wants[1] else None
        layer = _layer(rule, x[a:b], weight.shape[1], lo, hi)
        library.kan_backward(
            byref(layer), x.data_ptr() + 4 * a * x.shape[1], weight.data_ptr(),
            grad.data_ptr() + 4 * a * grad.shape[1],
            None if gx is None else gx.data_ptr() + 4 * a * x.shape[1],
            None if gw is None else gw.data_ptr(), _room(library.kan_floats(byref(layer), 1)),
        )  # fmt: skip
        return gw

    shares = _shares(x.shape[0])
    others = [_pool(len(shares) - 1).submit(some, *share) for share in shares[1:]]
    gw = some(*shares[0])
    for other in others:
        part = other.result()
        if gw is not None and part is not None:
            gw += part
    return gx, gw
