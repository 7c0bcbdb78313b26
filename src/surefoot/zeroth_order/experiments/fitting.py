"""One training of a study's arm: equal forwards, equally many looks at the validation loss."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor, nn

FORWARDS = 3
"""What a forward and backward cost, in forwards; a zeroth-order step costs two."""


def fit(
    model: nn.Module, optimizer: Any, steps: int, looks: int,
    loss_of: Callable[[Int[Tensor, " b"]], Tensor], rows: int, batch: int,
    validate: Callable[[], float], seed: int,
) -> float:  # fmt: skip
    """Train `model` in place to where its validation loss was lowest, and return that loss.

    Parameters
    ----------
    optimizer
        A zeroth-order optimiser, or one of torch, which gets two thirds of the steps.
    steps, looks
        Zeroth-order steps, and how often the validation loss is looked at.
    loss_of
        The loss of a batch, given the indices of its rows.
    rows, batch
        Training rows, and how many are drawn with replacement for a step.
    validate
        The validation loss of the model as it is.
    seed
        Of the batches.
    """
    first_order = not hasattr(optimizer, "estimate")
    if first_order:
        steps = max(1, steps * 2 // FORWARDS)
    generator = torch.Generator().manual_seed(seed)
    best, kept = np.inf, copy.deepcopy(model.state_dict())
    for step in range(1, steps + 1):
        at = torch.randint(0, rows, (batch,), generator=generator)
        if first_order:
            optimizer.zero_grad()
            loss_of(at).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        else:
            optimizer.step(lambda at=at: loss_of(at))
        if step % max(1, steps // looks) == 0:
            if not first_order:
                optimizer.flush()
            now = validate()
            if now < best:
                best, kept = now, copy.deepcopy(model.state_dict())
    if not first_order:
        # What the hooks still hold must not be added to the weights that were kept.
        optimizer.flush()
    model.load_state_dict(kept)
    return float(best)
