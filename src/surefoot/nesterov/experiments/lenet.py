"""The AGNES paper's MNIST experiment, LeNet-5 with batches of 60, six epochs at size paper.

Real MNIST from a package, or from a folder of your own. Tuned as part
small-batches: five learning rates for every optimizer, chosen on the validation split. Nothing is
promised here.
"""

from __future__ import annotations

from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from surefoot import data as datasets
from surefoot.nesterov.experiments.small_batches import compare, tune
from surefoot.record import Record

BATCH = 60
STEPS = {"quick": 60, "standard": 833, "paper": 6 * 833}  # 833 steps are one epoch of 50,000 images


def network(seed: int) -> nn.Module:
    """LeNet-5 with ReLU and max pooling."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
            nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10),
        )  # fmt: skip


def run(config: Any, seed: int, record: Record) -> None:
    """Every optimizer with its grid."""
    mnist = datasets.load("mnist", path=config.mnist)
    pairs = {
        "train": (mnist.x_train, mnist.y_train),
        "val": (mnist.x_val, mnist.y_val),
        "test": (mnist.x_test, mnist.y_test),
    }
    tensors: dict[str, tuple[Tensor, Tensor]] = {
        k: (torch.from_numpy(x).unsqueeze(1), torch.from_numpy(y)) for k, (x, y) in pairs.items()
    }
    tune(record, BATCH, STEPS[config.size], seed, tensors, network)


def tables(config: Any, record: Record) -> dict[str, pd.DataFrame]:
    """What the validation split chose."""
    return {f"LeNet-5 on MNIST, {STEPS[config.size]} steps": compare(record, BATCH)}
