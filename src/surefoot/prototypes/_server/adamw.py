"""The paper's training of the adapter: AdamW on mini-batches."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from surefoot._numerics.seeds import generator_for
from surefoot.errors import NonFiniteError

WARM_UP, WINDOW, FLAT, LONGEST = 10, 20, 1e-3, 1.0
"""Epochs of warm-up; losses looked at, and the deviation below which they are flat; the gradient's clip."""


@dataclass(frozen=True)
class Schedule:
    """How long, how fast and in which batches."""

    lr: float
    epochs: int
    batch_size: int
    steps: int | None
    authors_batches: bool
    early_stop: bool
    seed: int

    def rate(self, epoch: int) -> float:
        """The step size of an epoch: constant where steps are given, else warm-up and cosine."""
        if self.steps is not None:
            return self.lr
        if epoch < WARM_UP:
            return self.lr * (epoch + 1) / WARM_UP
        return (
            self.lr / 2 * (1 + math.cos(math.pi * (epoch - WARM_UP) / (self.epochs - WARM_UP or 1)))
        )

    def batches(self, rows: int, generator: torch.Generator) -> list[Int[Tensor, " B"]]:
        """Rows of each batch, in a new order."""
        order = torch.randperm(rows, generator=generator)
        parts = list(torch.split(order, self.batch_size))
        if len(parts) > 1:
            last = len(parts[-1])
            short = last < self.batch_size if self.authors_batches else last == 1
            if short and self.batch_size > 1:
                parts.pop()
        return parts


def train_adamw(
    adapter: nn.Module,
    head: nn.Module,
    features: Float[Tensor, "N d"],
    labels: Int[Tensor, " N"],
    schedule: Schedule,
) -> tuple[list[float], str]:
    """The losses of all steps, and why it ended."""
    optimizer = torch.optim.AdamW(adapter.parameters(), lr=schedule.lr)
    generator = generator_for("server batches", schedule.seed)
    losses: list[float] = []
    recent: deque[float] = deque(maxlen=WINDOW)
    batches = schedule.batches(len(features), generator)
    epoch = 0
    while schedule.steps is not None or epoch < schedule.epochs:
        if epoch and not schedule.authors_batches:
            batches = schedule.batches(len(features), generator)
        for group in optimizer.param_groups:
            group["lr"] = schedule.rate(epoch)
        for batch in batches:
            if schedule.steps is not None and len(losses) >= schedule.steps:
                return losses, "all steps taken"
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(head(adapter(features[batch])), labels[batch])
            # torch gives `backward` no types.
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(adapter.parameters(), LONGEST)
            optimizer.step()
            losses.append(float(loss.detach()))
            recent.append(losses[-1])
            flat = len(losses) > WINDOW and float(np.std(recent)) < FLAT
            if schedule.early_stop and flat:
                return losses, f"the last {WINDOW} losses deviate by less than {FLAT:g}"
        epoch += 1
    return losses, "all epochs done"


def refuse_diverged(adapter: nn.Module, losses: Sequence[float], lr: float) -> None:
    """Stop where a loss or a weight is not finite: such an adapter answers the same whatever it is asked.

    Raises
    ------
    surefoot.errors.NonFiniteError
        The step is named.
    """
    advice = f"take an lr below {lr:g}"
    for step, loss in enumerate(losses):
        if not math.isfinite(loss):
            raise NonFiniteError("the loss", step, loss, advice=advice)
    if not all(bool(torch.isfinite(p).all()) for p in adapter.parameters()):
        raise NonFiniteError("a weight of the adapter", len(losses), math.nan, advice=advice)
