"""Which rows each adapter sees at which step."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from surefoot.prototypes._baselines.stack import PADDING


def plan_of(
    sizes: Sequence[int],
    batch: int,
    generators: Sequence[torch.Generator],
    *,
    epochs: int | None = None,
    steps: int | None = None,
) -> Int[Tensor, "steps M batch"]:
    """So many epochs, or steps, of each adapter over its own rows, which lie one adapter behind the other.

    Every epoch is in a new order; a last batch of one row is left out, as in `train_global_adapter`.
    """
    columns, start = [], 0
    for n, generator in zip(sizes, generators, strict=True):
        parts: list[Tensor] = []
        done = 0
        while (done < epochs) if epochs is not None else (len(parts) < (steps or 0)):
            order = torch.randperm(n, generator=generator) + start
            cut = list(torch.split(order, batch))
            if len(cut) > 1 and len(cut[-1]) == 1 < batch:
                cut.pop()
            parts += cut
            done += 1
        columns.append(parts[:steps] if epochs is None else parts)
        start += n
    plan = torch.full((max(map(len, columns)), len(sizes), batch), PADDING)
    for m, parts in enumerate(columns):
        for t, rows in enumerate(parts):
            plan[t, m, : len(rows)] = rows
    return plan
