"""Which arrays a federation knows, and which values they may not have."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from jaxtyping import Shaped
from torch import Tensor

STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
VARIANCE = "running_var"
# What NumPy's format, and a mean or a maximum of it, are known for.
KNOWN = frozenset(
    {torch.float16, torch.float32, torch.float64, torch.uint8, torch.int8, torch.int16, torch.int32,
     torch.int64, torch.bool}
)  # fmt: skip


def is_statistic(name: str, statistics: Iterable[str] = STATISTICS) -> bool:
    """Whether an array holds what a layer measured, by the last part of its name."""
    return name.rpartition(".")[2] in statistics


def check_dtype(name: str, value: Tensor) -> None:
    """Refuse what Flower's arrays, or their mean, do not know.

    Raises
    ------
    TypeError
        It names the array, its dtype, and what to do.
    """
    if value.layout != torch.strided or value.is_quantized:
        raise TypeError(
            f"{name} is {_word(value.layout)}, which Flower's arrays do not know; send its dense values"
        )
    if value.dtype not in KNOWN:
        todo = "send torch.view_as_real of it" if value.is_complex() else "cast it first"
        raise TypeError(
            f"{name} is {_word(value.dtype)}, which Flower's arrays do not know; {todo}"
        )


def check_values(state: Mapping[str, Shaped[Tensor, "..."]]) -> None:
    """Refuse NaN, infinity and variances below 0.

    Raises
    ------
    ValueError
        It names the array.
    """
    for name, value in state.items():
        if not value.is_floating_point():
            continue
        if not bool(torch.isfinite(value).all()):
            raise ValueError(f"{name} holds NaN or infinity")
        if is_statistic(name, (VARIANCE,)) and bool((value < 0).any()):
            raise ValueError(
                f"{name} holds a negative variance, {float(value.min()):.6g}: statistics can be averaged, "
                "but not extrapolated or noised; keep them with the clients (bn = 'local') or use GroupNorm"
            )


def _word(kind: object) -> str:
    return str(kind).removeprefix("torch.")
