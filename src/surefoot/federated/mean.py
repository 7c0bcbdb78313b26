"""The reduction whose bits do not depend on who answered first."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from jaxtyping import Shaped
from torch import Tensor

from surefoot._numerics.arguments import checked
from surefoot._numerics.checks import check_number
from surefoot.federated._arrays import check_dtype, check_values

State = Mapping[str, Shaped[Tensor, "..."]]


def check_replies(replies: Mapping[int, tuple[State, float]]) -> list[int]:
    """The partitions of replies that can be averaged, in ascending order.

    Raises
    ------
    ValueError
        No replies, weights that are not positive numbers, NaN, infinity or a negative variance, or replies
        with other names, shapes or dtypes than the first; the partition and the array are named.
    TypeError
        Arrays that have no mean.
    """
    if not replies:
        raise ValueError("there is nothing to average: no replies")
    order = sorted(replies)
    first = replies[order[0]][0]
    for partition in order:
        state, weight = replies[partition]
        check_number(f"replies: the weight of partition {partition}", weight, above=0)
        try:
            check_reply(state, first)
        except ValueError as error:
            raise ValueError(
                f"replies must have the arrays of partition {order[0]}, those of {partition} differ: {error}"
            ) from None
    return order


def check_reply(state: State, expected: State) -> None:
    """Refuse a state that is not like the expected one.

    Parameters
    ----------
    state
        What a client sent.
    expected
        A state of the names, shapes and dtypes that it must have.

    Raises
    ------
    ValueError
        Another array, shape or dtype, NaN, infinity or a negative variance; the array is named.
    TypeError
        Arrays that have no mean.
    """
    for name in sorted({*expected, *state}):
        wanted, got = (_kind(s[name]) if name in s else "none" for s in (expected, state))
        if wanted != got:
            raise ValueError(f"{name} is {got}, it must be {wanted}")
    for name, value in state.items():
        if not value.is_floating_point():
            check_dtype(name, value)
    check_values(state)


def _kind(value: Tensor) -> str:
    shape = "x".join(map(str, value.shape)) or "scalar"
    return f"{str(value.dtype).removeprefix('torch.')} {shape}"


@checked
def weighted_mean(replies: Mapping[int, tuple[State, float]]) -> dict[str, Tensor]:
    """sum_p w_p state_p / sum_p w_p over {partition: (state, number of examples)}.

    Reduced in ascending partition, in float64 and back to each array's dtype, so the bits do not depend
    on the order of arrival; integers (a BatchNorm's counter) take the maximum, and booleans (a mask) must
    be the same everywhere.

    Raises
    ------
    ValueError
        No replies, weights that are not positive numbers, booleans that differ, NaN or infinity,
        or replies with other names, shapes or dtypes than the first.
    TypeError
        Complex arrays, of which a federation has no mean.
    """
    order = check_replies(replies)
    weights = [replies[p][1] for p in order]
    if math.isinf(sum(weights)):
        weights = [weight / max(weights) for weight in weights]
    total = sum(weights)
    mean = {}
    for name, first in replies[order[0]][0].items():
        values = [replies[p][0][name] for p in order]
        if first.is_floating_point():
            acc = torch.zeros(first.shape, dtype=torch.float64)
            for weight, value in zip(weights, values, strict=True):
                acc += (weight / total) * value.double()
            mean[name] = acc.to(first.dtype)
        else:
            if first.dtype == torch.bool and not all(torch.equal(first, v) for v in values):
                raise ValueError(f"replies differ in {name}, which is boolean and has no mean")
            mean[name] = torch.stack(values).amax(0)
    return mean
