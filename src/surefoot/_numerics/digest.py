"""Fingerprints of tensors: SHA-256 over what they are called, what they are and every bit."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor


def tensors_digest(tensors: Iterable[tuple[str, Tensor]], label: str) -> bytes:
    """SHA-256 over a label and the bits of each tensor, in the order given.

    Parameters
    ----------
    tensors : iterable of (str, Tensor)
        Names and tensors, of any dtype, on any device.
    label : str
        What stands before the bits: a format of {name}, {dtype} and {shape}. It is part of the
        file format that the digest goes into.
    """
    found = hashlib.sha256()
    for name, tensor in tensors:
        found.update(
            label.format(name=name, dtype=tensor.dtype, shape=tuple(tensor.shape)).encode()
        )
        raw: Any = tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
        found.update(raw)
    return found.digest()
