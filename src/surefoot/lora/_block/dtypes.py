"""Floating-point types that an argument may name."""

from __future__ import annotations

from typing import Any

import torch

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def check_dtype(name: str, value: Any) -> torch.dtype:
    """One of torch's floating-point types of 16 bits and more, or its name: "float16", "torch.float16".

    Raises
    ------
    ValueError
        It is none; the message names the argument.
    """
    names = {str(dtype).removeprefix("torch."): dtype for dtype in FLOATS}
    found = names.get(value.removeprefix("torch.")) if isinstance(value, str) else value
    if not isinstance(found, torch.dtype) or found not in FLOATS:
        raise ValueError(
            f"{name} must be torch's or the name of one of {', '.join(names)}, got {value!r}"
        )
    return found
