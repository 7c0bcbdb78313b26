"""Between an upload, or a ledger, and Flower's records."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Shaped

from surefoot._numerics.npy import read_npy
from surefoot.errors import need

with need("flwr", extra="federated", part="surefoot.prototypes on Flower"):
    from flwr.app import Array, ArrayRecord
    from flwr.app import ConfigRecord as ConfigRecord
    from flwr.app import RecordDict as RecordDict

ARRAYS, ABOUT = "arrays", "about"


def packed(arrays: Mapping[str, Shaped[np.ndarray, "..."]], about: Mapping[str, Any]) -> RecordDict:
    """An upload as it travels: {"arrays": ArrayRecord, "about": ConfigRecord}."""
    return RecordDict(
        {
            ARRAYS: ArrayRecord({k: Array(np.ascontiguousarray(v)) for k, v in arrays.items()}),
            ABOUT: ConfigRecord(dict(about)),
        }
    )


def unpacked(
    record: RecordDict,
) -> tuple[dict[str, Shaped[np.ndarray, "..."]], dict[str, Any]]:
    """Arrays and words of an upload that anybody may have sent.

    Raises
    ------
    ValueError
        A record is missing, or an array is none.
    """
    arrays, about = record.array_records.get(ARRAYS), record.config_records.get(ABOUT)
    if arrays is None or about is None:
        raise ValueError(
            f'an upload has an ArrayRecord "{ARRAYS}" and a ConfigRecord "{ABOUT}", got '
            f"{sorted(map(str, record))}"
        )
    return {name: read_npy(str(name), array.data) for name, array in arrays.items()}, dict(about)


def ledger_record(max_epsilon: float, delta: float, mu_squared: float) -> ConfigRecord:
    """A ledger as it stays in the state of a client."""
    return ConfigRecord({"max-epsilon": max_epsilon, "delta": delta, "mu-squared": mu_squared})


def ledger_numbers(record: ConfigRecord) -> tuple[Any, Any, Any]:
    """What `ledger_record` kept.

    Raises
    ------
    ValueError
        A number is missing: what was spent is not known.
    """
    names = ("max-epsilon", "delta", "mu-squared")
    missing = [name for name in names if name not in record]
    if missing:
        raise ValueError(f"the record of a ledger lacks {', '.join(missing)}")
    first, second, third = (record[name] for name in names)
    return first, second, third
