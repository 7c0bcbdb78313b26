"""What a reply must be like, and the mean of what replies say of their training."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from surefoot.errors import need
from surefoot.federated._arrays import check_values
from surefoot.federated.records import from_arrays

with need("flwr", extra="federated", part="surefoot.federated"):
    from flwr.app import ArrayRecord, MetricRecord, RecordDict

PARTITION = "partition-id"
State = dict[str, Tensor]


def only_records(content: RecordDict) -> tuple[ArrayRecord, MetricRecord]:
    """The arrays and the numbers of a reply.

    Raises
    ------
    ValueError
        It holds none, or several.
    """
    arrays = list(content.array_records.values())
    numbers = list(content.metric_records.values())
    if len(arrays) != 1 or len(numbers) != 1:
        raise ValueError(
            f"a reply holds one ArrayRecord and one MetricRecord, got {len(arrays)} and {len(numbers)}"
        )
    return arrays[0], numbers[0]


def read_reply(
    arrays: ArrayRecord,
    numbers: MetricRecord,
    expected: State,
    partition: int,
    weight: str,
    uniform: bool = False,
) -> tuple[State, float, dict[str, float]]:
    """State, weight and metrics of a reply; with `uniform` the weight is 1 whatever it says.

    Raises
    ------
    KeyError, ValueError
        It is not like `expected`, comes from another partition, or has no weight.
    """
    claimed = numbers.get(PARTITION)
    if claimed != partition:
        raise ValueError(f"it claims partition {claimed}, it is partition {partition}")
    examples = 1 if uniform else numbers.get(weight)
    if (
        isinstance(examples, bool)
        or not isinstance(examples, int | float)
        or not (0 < examples < math.inf)
    ):
        raise ValueError(f"{weight} must be a positive number, got {examples}")
    state = from_arrays(arrays, expected)
    check_values(state)
    found = {
        k: float(v)
        for k, v in numbers.items()
        if isinstance(v, int | float) and k not in (PARTITION, weight)
    }
    return state, float(examples), found


def mean_metrics(
    contents: Mapping[int, RecordDict], weight: str, uniform: bool = False
) -> MetricRecord:
    """Means of the metrics, numbers and lists, weighted by examples over those that have them."""
    said = {p: next(iter(content.metric_records.values())) for p, content in contents.items()}
    # Numbers here, as `read_reply` has seen to it; Flower's type is wider.
    own = {p: 1.0 if uniform else float(found[weight]) for p, found in said.items()}  # type: ignore[arg-type]
    mean = MetricRecord({weight: sum(own.values())})
    for name in sorted({name for found in said.values() for name in found} - {PARTITION, weight}):
        having = [p for p in sorted(said) if name in said[p]]
        total = sum(own[p] for p in having)
        lists = [found for p in having if isinstance(found := said[p][name], list)]
        if not lists:
            numbers: list[Any] = [said[p][name] for p in having]
            mean[name] = (
                sum(own[p] * float(v) for p, v in zip(having, numbers, strict=True)) / total
            )
        elif len(lists) == len(having) and len({len(found) for found in lists}) == 1:
            mean[name] = [
                sum(own[p] * v for p, v in zip(having, column, strict=True)) / total
                for column in zip(*lists, strict=True)
            ]
    return mean
