"""S5: a classifier on digits, where AGNES' edge over Nesterov momentum shows at small batches only.

64-128-128-10, cross entropy. Every optimizer gets a grid of five learning rates; the one with the
lowest validation loss is reported, with its training loss and its accuracy on the test split.
Nothing is promised here: the landscape is not known to be benign, so this part has no certificate.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn

from surefoot.nesterov.optimizer import AGNES
from surefoot.record import Record

STEPS = {"quick": 300, "standard": 1200, "paper": 4800}
BATCHES = {"quick": (4,), "standard": (4, 50), "paper": (4, 10, 50)}
Make = Callable[[Iterator[nn.Parameter], float], torch.optim.Optimizer]


def arms() -> dict[str, tuple[Make, tuple[float, ...]]]:
    """Name -> constructor and its five learning rates (for AGNES: eta, with alpha = eta / 10)."""
    sgd = torch.optim.SGD
    return {
        "SGD": (lambda p, lr: sgd(p, lr=lr), (0.02, 0.05, 0.1, 0.2, 0.5)),
        "heavy ball 0.9": (
            lambda p, lr: sgd(p, lr=lr, momentum=0.9),
            (0.002, 0.005, 0.01, 0.02, 0.05),
        ),
        "NAG 0.9": (
            lambda p, lr: sgd(p, lr=lr, momentum=0.9, nesterov=True),
            (0.002, 0.005, 0.01, 0.02, 0.05),
        ),
        "NAG 0.99": (
            lambda p, lr: sgd(p, lr=lr, momentum=0.99, nesterov=True),
            (0.0005, 0.001, 0.002, 0.005, 0.01),
        ),
        "Adam": (lambda p, lr: torch.optim.Adam(p, lr=lr), (0.0005, 0.001, 0.002, 0.005, 0.01)),
        "AGNES": (
            lambda p, lr: AGNES(p, lr=lr / 10, correction=lr, momentum=0.99),
            (0.005, 0.01, 0.02, 0.05, 0.1),
        ),
    }


def split(seed: int) -> dict[str, tuple[Tensor, Tensor]]:
    """1,077 training, 360 validation and 360 test images, stratified."""
    x, y = load_digits(return_X_y=True)
    x = (x / 16).astype(np.float32)
    rest_x, test_x, rest_y, test_y = train_test_split(
        x, y, test_size=360, random_state=seed, stratify=y
    )
    train_x, val_x, train_y, val_y = train_test_split(
        rest_x, rest_y, test_size=360, random_state=seed, stratify=rest_y
    )
    pairs = {"train": (train_x, train_y), "val": (val_x, val_y), "test": (test_x, test_y)}
    return {k: (torch.tensor(a), torch.tensor(b)) for k, (a, b) in pairs.items()}


def network(seed: int) -> nn.Module:
    """The classifier at its start."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 10)
        )


def train(
    make: Make, lr: float, batch: int, steps: int, seed: int,
    data: dict[str, tuple[Tensor, Tensor]],
) -> dict[str, float]:  # fmt: skip
    """One run; losses of the three splits and the test accuracy at the end (at x_n for AGNES)."""
    model = network(seed)
    optimizer = make(model.parameters(), lr)
    generator = torch.Generator().manual_seed(seed)
    x, y = data["train"]
    for _ in range(steps):
        rows = torch.randint(len(x), (batch,), generator=generator)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x[rows]), y[rows]).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    if isinstance(optimizer, AGNES):
        optimizer.finalize()
    found = {}
    with torch.no_grad():
        for name, (a, b) in data.items():
            out = model(a)
            found[name] = float(nn.functional.cross_entropy(out, b))
            found[f"{name} accuracy"] = float((out.argmax(1) == b).double().mean())
    return found


def run(config: Any, seed: int, record: Record) -> None:
    """Every optimizer with its grid, for each batch size."""
    data = split(seed)
    for batch in BATCHES[config.size]:
        for name, (make, grid) in arms().items():
            runs = [train(make, lr, batch, STEPS[config.size], seed, data) for lr in grid]
            best = int(np.argmin([np.nan_to_num(r["val"], nan=np.inf) for r in runs]))
            record.update(
                seed,
                0,
                {
                    f"{name}, batch {batch}: train loss": runs[best]["train"],
                    f"{name}, batch {batch}: test accuracy": runs[best]["test accuracy"],
                    f"{name}, batch {batch}: learning rate": grid[best],
                },
            )


def tables(config: Any, record: Record) -> dict[str, pd.DataFrame]:
    """Mean and spread over seeds of what the validation split chose."""
    found = {}
    for batch in BATCHES[config.size]:
        rows = []
        for name in arms():
            loss = record.constant(f"{name}, batch {batch}: train loss")
            accuracy = record.constant(f"{name}, batch {batch}: test accuracy")
            rates = record.constant(f"{name}, batch {batch}: learning rate")
            spread = loss.std(ddof=1) if len(loss) > 1 else float("nan")
            rows.append(
                {
                    "optimizer": name,
                    "seeds": len(loss),
                    "train loss, mean": float(loss.mean()),
                    "sd": float(spread),
                    "test accuracy, mean": float(accuracy.mean()),
                    "chosen rates": ", ".join(f"{r:g}" for r in sorted(set(rates))),
                }
            )
        found[f"batch {batch}, {STEPS[config.size]} steps"] = pd.DataFrame(rows)
    return found
