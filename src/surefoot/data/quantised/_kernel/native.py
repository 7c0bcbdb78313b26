"""Calls of the C kernel: when it can be had, and its blocks spread over threads."""

from __future__ import annotations

import ctypes
import functools
from ctypes import c_int, c_int64, c_void_p
from pathlib import Path

import torch
from torch import Tensor

from surefoot._native import build
from surefoot._native.threads import shared
from surefoot._numerics.transforms import seen_by_others
from surefoot.errors import warn

SOURCE = Path(__file__).with_name("blocks.c")
KINDS = {"Q4_0": 0, "Q4_1": 1, "Q8_0": 2}
DTYPES = (torch.float32, torch.bfloat16)
SIZE = 32
A_THREAD = 1 << 19
"""Fewer weights than that are not worth a thread."""


@functools.cache
def kernel() -> ctypes.CDLL:
    """The loaded library.

    Raises
    ------
    NoKernel
        As in `surefoot._native.build`.
    """
    library = build.load(build.build(SOURCE, "blocks"))
    library.surefoot_unpack.argtypes = [
        c_int,
        c_int,
        c_int64,
        c_int64,
        c_void_p,
        c_void_p,
        c_void_p,
    ]
    library.surefoot_unpack.restype = None
    return library


@functools.cache
def available() -> bool:
    """Whether there is a kernel; asked once a process, which is told once why not."""
    try:
        kernel()
    except build.NoKernel as error:
        warn(
            f"quantised weights are unpacked by torch, which is slower: {error}",
            RuntimeWarning,
        )
        return False
    return True


def possible(quants: Tensor, scales: Tensor, out: Tensor) -> bool:
    """Whether the kernel may fill `out`: C sees addresses only, and nobody sees C."""
    given = (quants, scales, out)
    return (
        out.dtype in DTYPES
        and all(t.device.type == "cpu" and t.is_contiguous() for t in given)
        and not seen_by_others(*given)
        and available()
    )


def unpack(quants: Tensor, scales: Tensor, kind: str, out: Tensor, *, columns: bool) -> None:
    """Fill `out`.

    Parameters
    ----------
    quants, scales
        By columns (blocks, bytes, width) and (blocks, scales, width); by rows (rows, blocks, bytes) and
        (rows, blocks, scales).
    kind
        The name of the type of blocks.
    out
        By columns (32 blocks, width), by rows (rows, 32 blocks); see `possible`.
    columns
        How the blocks lie.

    Raises
    ------
    ValueError
        The three are not of the same blocks: C would read or write beyond them.
    """
    _check_shapes(quants, scales, kind, out, columns)
    call = kernel().surefoot_unpack
    width = quants.shape[2] if columns else 0
    blocks = quants.shape[0] if columns else quants.shape[0] * quants.shape[1]
    # Bytes from one block, or from one line of blocks, to the next.
    steps = [
        0 if not blocks else t.numel() * t.element_size() // blocks for t in (quants, scales, out)
    ]
    at = quants.data_ptr(), scales.data_ptr(), out.data_ptr()
    narrow = out.dtype == torch.bfloat16

    def some(a: int, b: int) -> None:
        call(
            KINDS[kind], narrow, b - a, width, *(t + a * step for t, step in zip(at, steps, strict=True))
        )  # fmt: skip

    many = max(1, min(torch.get_num_threads(), out.numel() // A_THREAD, blocks))
    shared(some, blocks, many)


def _check_shapes(quants: Tensor, scales: Tensor, kind: str, out: Tensor, columns: bool) -> None:
    line, each = (SIZE if kind == "Q8_0" else SIZE // 2), (2 if kind == "Q4_1" else 1)
    if columns:
        blocks, _, width = quants.shape
        wanted = ((blocks, line, width), (blocks, each, width), (SIZE * blocks, width))
    else:
        rows, blocks, _ = quants.shape
        wanted = ((rows, blocks, line), (rows, blocks, each), (rows, SIZE * blocks))
    given = tuple(tuple(t.shape) for t in (quants, scales, out))
    if given != wanted or (quants.element_size(), scales.element_size()) != (1, 2):
        raise ValueError(f"quants, scales and out of {kind} must have shapes {wanted}, got {given}")
