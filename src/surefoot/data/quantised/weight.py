"""A parameter that is the blocks of its file: it has a shape, a dtype and a device, and no numbers.

It answers `F.linear` and `F.embedding`, so that nn.Linear and nn.Embedding, and whatever looks at modules by
their class, work with it as they are. Everything else that would read or write its numbers is refused.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from surefoot.data.quantised.blocks import (
    SIZE,
    Kind,
    Layout,
    scratch,
    split,
    unpack_columns,
    unpack_rows,
)
from surefoot.data.quantised.sums import same_sums

HEAD_ROWS = 2048
"""Rows of a weight by rows that are unpacked at a time."""


def _sizes(quants: Tensor, by: Layout) -> tuple[int, int]:
    """Outputs and inputs of a weight."""
    if by == "rows":
        return quants.shape[0], SIZE * quants.shape[1]
    return quants.shape[2], SIZE * quants.shape[0]


class BlockWeight(Tensor):
    """The weight of a linear module or an embedding, kept in ggml's blocks.

    Parameters
    ----------
    quants, scales
        As `split` lays them out.
    kind, by
        The type of the blocks, and how they lie.
    label
        What errors call it.
    dtype
        The dtype that it shows, and of the rows that are looked up; the blocks are what they are.

    Attributes
    ----------
    quants, scales, kind, by, label
        As given.
    outputs, inputs
        The shape.
    shift
        (A, V) of a term A V^T that is added to the numbers while they are unpacked; None but in checks.
    """

    quants: Tensor
    scales: Tensor
    kind: Kind
    by: Layout
    label: str
    outputs: int
    inputs: int
    shift: tuple[Tensor, Tensor] | None

    @staticmethod
    def __new__(
        cls,
        quants: Tensor,
        scales: Tensor,
        kind: Kind,
        by: Layout,
        label: str,
        dtype: torch.dtype = torch.float32,
    ) -> BlockWeight:
        """The wrapper, without memory for numbers."""
        return torch.Tensor._make_wrapper_subclass(
            cls, _sizes(quants, by), dtype=dtype, device=quants.device
        )

    def __init__(
        self,
        quants: Tensor,
        scales: Tensor,
        kind: Kind,
        by: Layout,
        label: str,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.quants, self.scales, self.shift = quants, scales, None
        self.kind, self.by, self.label = kind, by, label
        # A tensor of a class of its own takes microseconds to say its shape.
        self.outputs, self.inputs = _sizes(quants, by)

    @classmethod
    def of(
        cls,
        raw: UInt8[Tensor, "out blocks bytes"],
        kind: Kind,
        by: Layout,
        label: str,
        dtype: torch.dtype = torch.float32,
    ) -> BlockWeight:
        """From the bytes of the file.

        Parameters
        ----------
        raw, kind
            The blocks, and their type.
        by
            How to lay them out: by rows what is looked up, by columns what is multiplied with.
        label, dtype
            As above.
        """
        return cls(*split(raw, kind, by), kind, by, label, dtype)

    def packed(self) -> tuple[Tensor, ...]:
        """The bytes that stand for the numbers: what a digest of the weight is taken of."""
        return self.quants, self.scales

    # -- numbers ------------------------------------------------------------------------------------------

    def rows(self, which: Any, out: Tensor | None = None) -> Float[Tensor, "rows in"]:
        """Some rows of a weight by rows: in float32, exactly, or rounded to the dtype of `out`."""
        quants, scales = self.quants[which], self.scales[which]
        if out is None:
            out = torch.empty(len(quants), self.inputs, dtype=torch.float32, device=quants.device)
        unpack_rows(quants, scales, self.kind, out)
        return out if self.shift is None else out.addmm_(self.shift[0][which], self.shift[1].T)

    def unpacked(self) -> Float[Tensor, "out in"]:
        """The whole weight in float32, exactly, in memory of its own."""
        if self.by == "rows":
            return self.rows(slice(None))
        return self._transposed(shared=False).T.contiguous()

    def _transposed(
        self, *, shared: bool, dtype: torch.dtype = torch.float32
    ) -> Float[Tensor, "in out"]:
        shape, device = (self.inputs, self.outputs), self.quants.device
        # A term is added to the exact numbers.
        first = dtype if self.shift is None else torch.float32
        out = (
            scratch(shape, first, device)
            if shared
            else torch.empty(shape, dtype=first, device=device)
        )
        unpack_columns(self.quants, self.scales, self.kind, out)
        if self.shift is not None:
            out.addmm_(self.shift[1], self.shift[0].T)
        return out.to(dtype)

    def frobenius(self) -> float:
        """The Frobenius norm, without unpacking more than a part at a time."""
        if self.by == "columns":
            return float(self._transposed(shared=True).norm())
        each = (self.rows(rows).double().norm() for rows in self._parts())
        return math.hypot(*map(float, each))

    def _parts(self) -> list[slice]:
        count = self.outputs
        return [slice(at, min(at + HEAD_ROWS, count)) for at in range(0, count, HEAD_ROWS)]

    def product(
        self,
        x: Float[Tensor, "... in"],
        dtype: torch.dtype | None = None,
        bias: Tensor | None = None,
    ) -> Float[Tensor, "... out"]:
        """x W^T (+ bias), computed in `dtype` and returned in it.

        In float32 bitwise `F.linear` of the unpacked weight; in 16 bits that of the weight rounded to them.

        Parameters
        ----------
        x
            The inputs.
        dtype
            What the factors are rounded to; by default that of x.
        bias
            Added to every row.
        """
        dtype = dtype or x.dtype
        flat = x.reshape(-1, x.shape[-1]).to(dtype)
        # What autograd keeps must not be written over by the next weight.
        shared = not (torch.is_grad_enabled() and flat.requires_grad)
        if self.by == "rows":
            y = self._by_blocks(flat, bias, shared=shared)
        else:
            weight = self._transposed(shared=shared, dtype=dtype).T
            if not same_sums(flat, weight, bias):
                weight = weight.contiguous()
            y = F.linear(flat, weight, bias)
        return y.view(*x.shape[:-1], self.outputs)

    def _by_blocks(self, x: Tensor, bias: Tensor | None, *, shared: bool) -> Tensor:
        count, width = self.outputs, self.inputs
        if not shared:
            each = [
                F.linear(x, self.rows(rows).to(x.dtype), None if bias is None else bias[rows])
                for rows in self._parts()
            ]
            return torch.cat(each, 1)
        y = x.new_empty(len(x), count)
        for rows in self._parts():
            first = x.dtype if self.shift is None else torch.float32
            room = scratch((rows.stop - rows.start, width), first, self.quants.device)
            weight = self.rows(rows, room).to(x.dtype)
            y[:, rows] = F.linear(x, weight, None if bias is None else bias[rows])
        return y

    def lookup(self, ids: Int[Tensor, "..."]) -> Float[Tensor, "... in"]:
        """The rows of some numbers, in the dtype that the weight shows."""
        if self.by != "rows":
            raise RuntimeError(f"{self.label} lies by columns, and its rows cannot be looked up")
        found = self.rows(ids.reshape(-1)).view(*ids.shape, self.inputs)
        return found.to(self.dtype)

    # -- as a tensor --------------------------------------------------------------------------------------

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Products and rows; the rest as of any tensor."""
        kwargs = kwargs or {}
        if func is F.linear:
            return _linear(*args, **kwargs)
        if func is F.embedding:
            return _embedding(*args, **kwargs)
        plain: Any = super().__torch_function__
        return plain(func, types, args, kwargs)

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Copies and moves keep the blocks; numbers are not to be had."""
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__
        if name in ("detach", "alias"):
            return args[0]._with(args[0].quants, args[0].scales)
        if name == "clone":
            return args[0]._with(args[0].quants.clone(), args[0].scales.clone())
        if name == "_to_copy":
            device = kwargs.get("device") or args[0].device
            moved = (args[0].quants.to(device), args[0].scales.to(device))
            return args[0]._with(*moved, kwargs.get("dtype"))
        own = next(each for each in _flat((args, kwargs)) if isinstance(each, BlockWeight))
        raise RuntimeError(
            f"{own.label} is kept in its file's blocks ({own.kind.name}), which {name} cannot read or write "
            "as numbers: it serves F.linear and F.embedding; open the model unpacked for anything else"
        )

    def _with(
        self, quants: Tensor, scales: Tensor, dtype: torch.dtype | None = None
    ) -> BlockWeight:
        return BlockWeight(quants, scales, self.kind, self.by, self.label, dtype or self.dtype)

    def __tensor_flatten__(self) -> tuple[list[str], Any]:
        """For moves of whole modules."""
        return ["quants", "scales"], (self.kind, self.by, self.label, self.dtype)

    @staticmethod
    def __tensor_unflatten__(inner: Any, meta: Any, size: Any, stride: Any) -> BlockWeight:
        """The wrapper again."""
        return BlockWeight(inner["quants"], inner["scales"], *meta)

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"BlockWeight({self.label}, {tuple(self.shape)}, {self.kind.name}, by {self.by})"


def _flat(given: Any) -> Any:
    if isinstance(given, dict):
        given = given.values()
    if isinstance(given, (list, tuple)) or not isinstance(given, (Tensor, str, int, float)):
        try:
            for each in given:
                yield from _flat(each)
        except TypeError:
            return
    else:
        yield given


def _linear(input: Any, weight: Any, bias: Any = None) -> Any:
    if not isinstance(weight, BlockWeight) or isinstance(input, BlockWeight):
        raise RuntimeError("F.linear takes a weight in blocks as its weight only")
    return weight.product(input, bias=bias)


def _embedding(
    input: Any,
    weight: Any,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Any:
    if max_norm is not None:
        raise RuntimeError(
            f"{weight.label} is kept in blocks and cannot be renormalised: max_norm must be None"
        )
    return weight.lookup(input)
