"""The reduction whose bits do not depend on who answered first."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Shaped
from torch import Tensor

from surefoot._numerics.checks import check_number
from surefoot.federated._arrays import check_dtype

State = Mapping[str, Shaped[Tensor, "..."]]


def weighted_mean(replies: Mapping[int, tuple[State, float]]) -> dict[str, Tensor]:
    """sum_p w_p state_p / sum_p w_p over {partition: (state, number of examples)}.

    Reduced in ascending partition, in float64 and back to each array's dtype, so the bits do not depend
    on the order of arrival; integers (a BatchNorm's counter) take the maximum, and booleans (a mask) must
    be the same everywhere.

    Raises
    ------
    ValueError
        No replies, weights that are not positive numbers, booleans that differ,
        or replies with other names or shapes than the first.
    TypeError
        Complex arrays, of which a federation has no mean.
    """
    if not replies:
        raise ValueError("there is nothing to average: no replies")
    order = sorted(replies)
    weights = [check_number("replies", replies[p][1], above=0) for p in order]
    total = sum(weights)
    like = {k: v.shape for k, v in replies[order[0]][0].items()}
    for p in order[1:]:
        if {k: v.shape for k, v in replies[p][0].items()} != like:
            raise ValueError(
                f"replies must have the arrays of partition {order[0]}, those of {p} differ"
            )
    mean = {}
    for name, first in replies[order[0]][0].items():
        values = [replies[p][0][name] for p in order]
        if not first.is_floating_point():
            check_dtype(name, first)
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
