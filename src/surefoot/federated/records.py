"""Between a model's state and Flower's records, with every dtype and shape checked."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from flwr.app import Array, ArrayRecord
from jaxtyping import Shaped
from torch import Tensor

State = Mapping[str, Shaped[Tensor, "..."]]


def to_arrays(state_dict: State) -> ArrayRecord:
    """A state as an ArrayRecord, every dtype kept.

    Raises
    ------
    TypeError
        bfloat16, which the wire format does not know; cast it first.
    """
    record = ArrayRecord()
    for name, value in state_dict.items():
        if value.dtype == torch.bfloat16:
            raise TypeError(f"{name} is bfloat16, which Flower's arrays do not know; cast it first")
        record[name] = Array(value.detach().cpu().contiguous().numpy())
    return record


def from_arrays(record: ArrayRecord, like: State) -> dict[str, Tensor]:
    """The state in a record, which must be one like `like`: the same names, shapes and dtypes.

    Raises
    ------
    KeyError
        Missing or extra arrays, all of them named.
    ValueError
        Arrays of another shape or dtype, all of them named.
    """
    missing = sorted(set(like) - set(record))
    extra = sorted(set(record) - set(like))
    if missing or extra:
        raise KeyError(f"the arrays do not fit the model: missing {missing}, extra {extra}")
    found, wrong = {}, []
    for name, reference in like.items():
        value = record[name].numpy()
        expected = np.dtype(str(reference.dtype).removeprefix("torch."))
        if value.shape != tuple(reference.shape) or value.dtype != expected:
            wrong.append(
                f"{name}: {value.dtype}{list(value.shape)} "
                f"in place of {expected}{list(reference.shape)}"
            )
        else:
            # A copy: the record's memory is read-only.
            found[name] = torch.from_numpy(np.array(value)).reshape(reference.shape)
    if wrong:
        raise ValueError(f"arrays of another shape or dtype: {'; '.join(wrong)}")
    return found


def wire_bytes(record: ArrayRecord) -> int:
    """Bytes of the serialised arrays, as they travel."""
    return sum(len(array.data) for array in record.values())
