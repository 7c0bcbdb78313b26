"""How a state travels: how many bytes it is, and extra arrays in a message's configuration."""

from __future__ import annotations

import io
from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Shaped
from torch import Tensor

from surefoot.federated._arrays import check_dtype

EXTRA = "__extra__."


def npy_bytes(state: Mapping[str, Shaped[Tensor, "..."]]) -> int:
    """Bytes of the arrays in NumPy's format, as Flower serialises them: a header and the numbers of each."""
    total = 0
    for name, value in state.items():
        check_dtype(name, value)
        header = io.BytesIO()
        dtype = np.dtype(str(value.dtype).removeprefix("torch."))
        about = {"descr": dtype.str, "fortran_order": False, "shape": tuple(value.shape)}
        np.lib.format.write_array_header_1_0(header, about)
        total += len(header.getvalue()) + value.numel() * value.element_size()
    return total


def packed(state: Mapping[str, Shaped[Tensor, "..."]]) -> dict[str, bytes]:
    """Extra arrays as entries of a message's one configuration.

    Flower's mods compare the arrays of a reply with those that were sent, and take one record of each kind:
    what is no part of the model may not travel among them.
    """
    found = {}
    for name, value in state.items():
        check_dtype(name, value)
        file = io.BytesIO()
        np.save(file, value.detach().cpu().contiguous().numpy(), allow_pickle=False)
        found[EXTRA + name] = file.getvalue()
    return found


def unpacked(config: Mapping[str, object]) -> dict[str, Tensor]:
    """The extra arrays of a configuration; {} where it has none."""
    return {
        name.removeprefix(EXTRA): torch.from_numpy(np.load(io.BytesIO(value), allow_pickle=False))
        for name, value in config.items()
        if name.startswith(EXTRA) and isinstance(value, bytes)
    }
