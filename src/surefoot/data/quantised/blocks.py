"""ggml's blocks of 32 weights, and their numbers again: exact in float32.

    Q4_0: float16 d, 16 bytes;              weight d (q - 8)
    Q4_1: float16 d, float16 m, 16 bytes;   weight d q + m
    Q8_0: float16 d, 32 signed bytes;       weight d q

In the 4-bit kinds the low halves of the bytes are the first 16 weights. Products of a float16 and 4 or 8 bits
are exact in float32, so that it does not matter who multiplies.

Two ways to lie in memory. By rows, as in the file: (out, blocks, bytes), from which single rows are taken.
By columns: (blocks, bytes, out), so that the inner loop of unpacking runs over the outputs, without a break
at every 32 weights, and what comes out is the transposed weight.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from surefoot.data.quantised._kernel import native

SIZE = 32
"""Weights in a block."""
Layout = Literal["rows", "columns"]


@dataclass(frozen=True)
class Kind:
    """A type of blocks: its name, the numbers it scales with, and the bytes of its weights."""

    name: str
    scales: int
    quants: int

    @property
    def bytes(self) -> int:
        """Of a block."""
        return 2 * self.scales + self.quants


KINDS = {2: Kind("Q4_0", 1, 16), 3: Kind("Q4_1", 2, 16), 8: Kind("Q8_0", 1, 32)}
"""By ggml's numbers."""


class _Scratch(threading.local):
    """Room for one unpacked weight, shared by all: fresh pages a call cost more than the arithmetic."""

    def __init__(self) -> None:
        self.held: dict[tuple[torch.dtype, torch.device], Tensor] = {}

    def __call__(self, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
        size = torch.Size(shape).numel()
        there = self.held.get((dtype, device))
        if there is None or there.numel() < size:
            # A tensor that is made in inference mode could not be written outside it.
            with torch.inference_mode(False):
                self.held[dtype, device] = there = torch.empty(size, dtype=dtype, device=device)
        return there[:size].view(shape)


scratch = _Scratch()


def split(
    raw: UInt8[Tensor, "out blocks bytes"], kind: Kind, layout: Layout
) -> tuple[UInt8[Tensor, "..."], Int[Tensor, "..."]]:
    """Quants and scales of a weight, laid out once: copies of the file's bytes.

    Scales are float16 seen as int16: whoever casts a model's floating tensors does not touch them.

    Returns
    -------
    By rows (out, blocks, bytes) and (out, blocks, scales); by columns (blocks, bytes, out) and
    (blocks, scales, out).
    """
    at = 2 * kind.scales
    scales = raw[..., :at].contiguous().view(torch.int16)
    quants = raw[..., at:]
    if layout == "columns":
        return quants.permute(1, 2, 0).contiguous(), scales.permute(1, 2, 0).contiguous()
    return quants.contiguous(), scales


def unpack_rows(
    quants: UInt8[Tensor, "rows blocks bytes"],
    scales: Int[Tensor, "rows blocks scales"],
    kind: Kind,
    out: Float[Tensor, "rows in"],
) -> Float[Tensor, "rows in"]:
    """Weights of some rows, written into `out`; exact, but for the rounding to a dtype of 16 bits."""
    if native.possible(quants, scales, out):
        native.unpack(quants, scales, kind.name, out, columns=False)
    else:
        rows, blocks, _ = quants.shape
        by_torch(quants, scales, kind, out.view(rows, blocks, SIZE), 2)
    return out


def unpack_columns(
    quants: UInt8[Tensor, "blocks bytes out"],
    scales: Int[Tensor, "blocks scales out"],
    kind: Kind,
    out: Float[Tensor, "in out"],
) -> Float[Tensor, "in out"]:
    """The transposed weight, written into `out`; exact, but for the rounding to a dtype of 16 bits."""
    if native.possible(quants, scales, out):
        native.unpack(quants, scales, kind.name, out, columns=True)
    else:
        blocks, _, width = quants.shape
        by_torch(quants, scales, kind, out.view(blocks, SIZE, width), 1)
    return out


def by_torch(quants: Tensor, scales: Tensor, kind: Kind, out: Tensor, axis: int) -> None:
    """Into `out`, whose `axis` is along a block, as is that of the bytes and of the scales."""
    if out.element_size() < 4:
        wide = scratch(tuple(out.shape), torch.float32, out.device)
        by_torch(quants, scales, kind, wide, axis)
        out.copy_(wide)
        return
    d = scales.view(torch.float16).to(out.dtype)
    if kind.name == "Q8_0":
        out.copy_(quants.view(torch.int8))
        out.mul_(d)
        return
    halves = out.view(*out.shape[:axis], 2, SIZE // 2, *out.shape[axis + 1 :])
    _halves(quants, halves.select(axis, 0), halves.select(axis, 1))
    scale, *least = (each.unsqueeze(axis + 1) for each in d.chunk(kind.scales, axis))
    _scaled(halves, scale, least[0] if least else None)


def _halves(quants: Tensor, low: Tensor, high: Tensor) -> None:
    room = scratch(tuple(quants.shape), torch.uint8, quants.device)
    low.copy_(torch.bitwise_and(quants, 15, out=room))
    high.copy_(torch.bitwise_right_shift(quants, 4, out=room))


def _scaled(halves: Tensor, d: Tensor, m: Tensor | None) -> None:
    if m is None:
        halves.sub_(8).mul_(d)
    else:
        torch.addcmul(m, halves, d, out=halves)
