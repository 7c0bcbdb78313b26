"""The paper's Table 3 on its own data: MNIST, a 784-64-64-5 network from digits 0-4 to 5-9.

Rank 1, alpha 1, AdamW, batches of 128, dropout .1, a merge an epoch. Nothing is promised. The learning
rate is chosen on the validation part; there is no early stop, every arm takes all epochs.
"""

from __future__ import annotations

import copy
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import nn

from surefoot._problems.tuning import EqualTuning
from surefoot.lora.config import Method
from surefoot.lora.experiments.nets import (
    METHODS,
    Budget,
    Outcome,
    Split,
    Task,
    accuracy,
    adapt,
    mlp,
    pretrain,
)
from surefoot.lora.experiments.tuning import compare, tune
from surefoot.record import Record

BATCH = 128
EPOCHS = {"quick": 2, "standard": 20, "paper": 50}
RATES = {"quick": (3e-3,), "standard": (3e-3, 1e-2), "paper": (2e-4, 1e-3, 3e-3, 1e-2)}


@cache
def mnist(path: Path | None) -> tuple[Task, Task]:
    """Digits 0-4 and 5-9 in the split of the source, pixels in [0, 1], labels from 0."""
    from surefoot import data

    images = data.load("mnist", path)
    tasks = []
    for low in (0, 5):
        splits = []
        for part in ("train", "val", "test"):
            x, y = getattr(images, f"x_{part}"), getattr(images, f"y_{part}")
            rows = (y >= low) & (y < low + 5)
            splits.append(
                Split(torch.from_numpy(x[rows]).flatten(1), torch.from_numpy(y[rows] - low))
            )
        tasks.append(Task(*splits))
    return tasks[0], tasks[1]


@cache
def pretrained(path: Path | None, seed: int = 0) -> nn.Module:
    """The network after two epochs on digits 0-4."""
    model = mlp(784, seed)
    pretrain(model, mnist(path)[0].train, 2, BATCH, seed)
    return model


def run(config: Any, seed: int, record: Record) -> None:
    """Every method, side and learning rate."""
    source, task = mnist(config.mnist)
    start = pretrained(config.mnist)
    record.append(seed, 0, pretrained=accuracy(start, source.test))
    epochs = EPOCHS[config.size]
    tuning = EqualTuning("higher")
    for method in METHODS:
        for side in ("B", "A") if method != "fpft" else ("B",):

            def train(lr: float, method: Method = method, side: str = side) -> Outcome:
                budget = Budget(epochs=epochs, batch=BATCH, blocks=epochs, lr=lr)
                return adapt(copy.deepcopy(start), task, method, side, budget, seed)

            arm = f"{method}, train {side}" if method != "fpft" else method
            tune(record, seed, tuning, arm, RATES[config.size], train)


def tables(config: Any, record: Record) -> dict[str, pd.DataFrame]:
    """What the validation split chose."""
    return {f"MNIST 0-4 to 5-9, {EPOCHS[config.size]} epochs": compare(record)}
