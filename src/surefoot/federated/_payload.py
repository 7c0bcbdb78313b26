"""How many bytes a state is on the wire, counted without building the message."""

from __future__ import annotations

import io
from collections.abc import Mapping

import numpy as np
from jaxtyping import Shaped
from torch import Tensor


def npy_bytes(state: Mapping[str, Shaped[Tensor, "..."]]) -> int:
    """Bytes of the arrays in NumPy's format, as Flower serialises them: a header and the numbers of each."""
    total = 0
    for value in state.values():
        header = io.BytesIO()
        dtype = np.dtype(str(value.dtype).removeprefix("torch."))
        about = {"descr": dtype.str, "fortran_order": False, "shape": tuple(value.shape)}
        np.lib.format.write_array_header_1_0(header, about)
        total += len(header.getvalue()) + value.numel() * value.element_size()
    return total
