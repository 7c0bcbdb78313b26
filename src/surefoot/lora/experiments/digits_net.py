"""The network of the paper's Table 3 on the digits of scikit-learn: pretrained on 0-4, adapted to 5-9.

64-64-64-5, rank 1, AdamW, batches of 32, 100 epochs in 50 blocks. Nothing is promised: AdamW and
dropout are outside the theorems. Each method picks its learning rate on the validation split.
"""

from __future__ import annotations

import copy
from functools import cache
from typing import Any

import pandas as pd
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
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

RATES = {"quick": (3e-3,), "standard": (3e-3, 1e-2), "paper": (3e-4, 1e-3, 3e-3, 1e-2)}
EPOCHS = {"quick": 20, "standard": 100, "paper": 100}
SIDES = {"quick": ("B",), "standard": ("B", "A"), "paper": ("B", "A")}


@cache
def digits() -> tuple[Task, Task]:
    """Digits 0-4 and 5-9, 70 % to train, the rest halved into validation and test, stratified."""
    x, y = load_digits(return_X_y=True)
    tasks = []
    for low in (0, 5):
        rows = (y >= low) & (y < low + 5)
        inputs = torch.tensor(x[rows] / 16.0, dtype=torch.float32)
        labels = torch.tensor(y[rows] - low)
        train, rest = train_test_split(
            range(len(labels)), test_size=0.3, stratify=labels, random_state=0
        )
        val, test = train_test_split(rest, test_size=0.5, stratify=labels[rest], random_state=0)
        tasks.append(Task(*(Split(inputs[i], labels[i]) for i in (train, val, test))))
    return tasks[0], tasks[1]


def pretrained(seed: int = 0) -> nn.Module:
    """The network after 30 epochs on digits 0-4."""
    source, _ = digits()
    model = mlp(64, seed)
    pretrain(model, source.train, 30, 32, seed)
    return model


def run(config: Any, seed: int, record: Record) -> None:
    """Every method, side and learning rate."""
    _, task = digits()
    start = pretrained()
    record.append(seed, 0, pretrained=accuracy(start, digits()[0].test))
    tuning = EqualTuning("higher")
    for method in METHODS:
        for side in SIDES[config.size] if method != "fpft" else ("B",):

            def train(lr: float, method: Method = method, side: str = side) -> Outcome:
                budget = Budget(epochs=EPOCHS[config.size], lr=lr)
                return adapt(copy.deepcopy(start), task, method, side, budget, seed)

            arm = f"{method}, train {side}" if method != "fpft" else method
            tune(record, seed, tuning, arm, RATES[config.size], train)


def tables(config: Any, record: Record) -> dict[str, pd.DataFrame]:
    """What the validation split chose."""
    return {f"digits 0-4 to 5-9, {EPOCHS[config.size]} epochs": compare(record)}
