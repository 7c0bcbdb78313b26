"""Checks of prompts as they come in: tensors, one dtype, shapes that fit, finite numbers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from surefoot._numerics.transforms import readable


def check_prompt(
    X: Any, y: Any, xq: Any, d: int | None = None, dtype: torch.dtype | None = None
) -> None:
    """X (batch, d, n), y (batch, n) and xq (batch, d).

    Compiled, traced or under torch.func finiteness is not looked for: values cannot be read there.

    Raises
    ------
    ValueError
        One of them is not; the message names it.
    """
    _check({"X": X, "y": y, "xq": xq}, d, dtype)


def check_examples(X: Any, y: Any, d: int, dtype: torch.dtype) -> None:
    """`check_prompt` without queries."""
    _check({"X": X, "y": y}, d, dtype)


def _check(given: dict[str, Any], d: int | None, dtype: torch.dtype | None) -> None:
    X, y = given["X"], given["y"]
    for name, value in given.items():
        if not isinstance(value, Tensor) or not value.is_floating_point():
            kind = value.dtype if isinstance(value, Tensor) else type(value).__name__
            raise ValueError(f"{name} must be a tensor of real numbers, got {kind}")
        wanted = X.dtype if dtype is None else dtype
        if value.dtype != wanted:
            whose = "X's" if dtype is None else "the model's"
            raise ValueError(
                f"{name} must have {whose} dtype {wanted}, got {value.dtype}; "
                "convert it, or the model with .double() or .float()"
            )
    if X.ndim != 3 or X.shape[1] != (d or X.shape[1]) or not X.shape[1]:
        raise ValueError(f"X must have shape (batch, {d or 'd >= 1'}, n), got {tuple(X.shape)}")
    batch, features, n = X.shape
    if y.shape != (batch, n):
        raise ValueError(f"y must have shape ({batch}, {n}) as X has, got {tuple(y.shape)}")
    xq = given.get("xq")
    if xq is not None and xq.shape != (batch, features):
        raise ValueError(f"xq must have shape ({batch}, {features}), got {tuple(xq.shape)}")
    if not readable():
        return
    for name, value in given.items():
        # A sum is NaN or infinite if one term is, and costs one pass without a copy.
        if not bool(torch.isfinite(value.detach().sum())) and not bool(torch.isfinite(value).all()):
            raise ValueError(f"{name} must be finite, got NaN or infinity in it")
