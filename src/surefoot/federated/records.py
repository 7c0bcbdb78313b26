"""Between a model's state and Flower's records, with every dtype and shape checked."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Shaped
from torch import Tensor

from surefoot._numerics.arguments import checked
from surefoot._numerics.npy import read_npy
from surefoot.errors import need
from surefoot.federated._arrays import check_dtype
from surefoot.record import Fact, Record

with need("flwr", extra="federated", part="surefoot.federated"):
    from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

FACTS, MOST_BYTES = "facts", 16_384
State = Mapping[str, Shaped[Tensor, "..."]]


@checked
def to_arrays(state_dict: State) -> ArrayRecord:
    """A state as an ArrayRecord, every dtype kept.

    Raises
    ------
    TypeError
        What the wire format or a mean does not know: bfloat16, float8, complex, sparse; cast it first.
    """
    record = ArrayRecord()
    for name, value in state_dict.items():
        check_dtype(name, value)
        record[name] = Array(value.detach().cpu().contiguous().numpy())
    return record


@checked
def from_arrays(record: ArrayRecord, like: State) -> dict[str, Tensor]:
    """The state in a record, which must be one like `like`: the same names, shapes and dtypes.

    Raises
    ------
    KeyError
        Missing or extra arrays, all of them named.
    ValueError
        Arrays of another shape or dtype, all of them named.
    TypeError
        `like` holds an array that Flower's do not know.
    """
    missing = sorted(set(like) - set(record))
    extra = sorted(set(record) - set(like))
    if missing or extra:
        raise KeyError(f"the arrays do not fit the model: missing {missing}, extra {extra}")
    found, wrong = {}, []
    for name, reference in like.items():
        check_dtype(name, reference)
        # Not Array.numpy(), which makes room for whatever a header claims.
        value = read_npy(name, record[name].data)
        expected = np.dtype(str(reference.dtype).removeprefix("torch."))
        if value.shape != tuple(reference.shape) or value.dtype != expected:
            wrong.append(
                f"{name}: {value.dtype}{list(value.shape)} "
                f"in place of {expected}{list(reference.shape)}"
            )
        else:
            found[name] = torch.from_numpy(value).reshape(reference.shape)
    if wrong:
        raise ValueError(f"arrays of another shape or dtype: {'; '.join(wrong)}")
    return found


def state_of(record: ArrayRecord) -> dict[str, Tensor]:
    """The state in a record, whatever its names and shapes.

    Raises
    ------
    TypeError
        An array of a dtype that a mean does not know.
    """
    found = {}
    for name, array in record.items():
        value = array.numpy()
        try:
            # A copy: the record's memory is read-only.
            found[name] = torch.from_numpy(np.array(value)).reshape(value.shape)
        except TypeError:
            raise TypeError(f"{name} is {value.dtype}, which torch does not know") from None
        check_dtype(name, found[name])
    return found


def fingerprint(record: ArrayRecord) -> bytes:
    """SHA-256 of names and bits: tells whether arrays came back as they were given."""
    found = hashlib.sha256()
    for name, array in record.items():
        found.update(name.encode())
        found.update(array.data)
    return found.digest()


@checked
def wire_bytes(record: ArrayRecord) -> int:
    """Bytes of the serialised arrays, as they travel."""
    return sum(len(array.data) for array in record.values())


def facts_record(record: Record) -> ConfigRecord | None:
    """The facts of a client's record as they travel with its reply; None where it noted none."""
    facts = {name: list(known.all) for name, known in record.facts.items()}
    return ConfigRecord({"json": json.dumps(facts)}) if facts else None


def read_facts(content: RecordDict) -> dict[str, list[Fact]]:
    """What a reply says of how its client trained, {name: values}; {} where it says nothing.

    Raises
    ------
    ValueError
        Facts that are none, or more than 16 KiB of them.
    """
    found = content.config_records.get(FACTS)
    if found is None:
        return {}
    text = found.get("json")
    if not isinstance(text, str) or len(text) > MOST_BYTES:
        raise ValueError(f"facts of a reply must be JSON of at most {MOST_BYTES} bytes")
    try:
        facts = json.loads(text)
    except RecursionError:
        raise ValueError("facts of a reply are nested too deeply") from None
    if not isinstance(facts, dict) or not all(
        isinstance(values, list) and all(_is_fact(v) for v in values) for values in facts.values()
    ):
        raise ValueError("facts of a reply must be lists of words, finite numbers, true or false")
    return facts


def _is_fact(value: object) -> bool:
    # JSON has whole numbers of any length, floats end at 2^1024.
    if isinstance(value, int):
        return abs(value) < 2**1023
    return isinstance(value, str) or (isinstance(value, float) and math.isfinite(value))
