"""A classifier on digits, where AGNES' edge over Nesterov momentum shows at small batches only.

64-128-128-10, cross entropy. Every optimizer gets a grid of five learning rates; the one with the
lowest validation loss is reported, with its training loss and its accuracy on the test split.
Nothing is promised here: the landscape is not known to be benign, so this part has no certificate.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import isfinite
from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn

from surefoot._problems.tuning import EqualTuning, remarks
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
    make: Make,
    lr: float,
    batch: int,
    steps: int,
    seed: int,
    data: tuple[Tensor, Tensor],
    build: Callable[[int], nn.Module] = network,
) -> nn.Module:
    """One run on batches drawn with replacement; the parameters are x_n at the end for AGNES."""
    model = build(seed)
    optimizer = make(model.parameters(), lr)
    generator = torch.Generator().manual_seed(seed)
    x, y = data
    for _ in range(steps):
        rows = torch.randint(len(x), (batch,), generator=generator)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x[rows]), y[rows]).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    if isinstance(optimizer, AGNES):
        optimizer.finalize()
    return model


@torch.no_grad()
def evaluate(model: nn.Module, data: tuple[Tensor, Tensor]) -> tuple[float, float]:
    """(cross entropy, accuracy), a thousand examples at a time; a diverged model has loss inf."""
    loss = correct = 0.0
    for x, y in zip(torch.split(data[0], 1000), torch.split(data[1], 1000), strict=True):
        out = model(x)
        loss += float(nn.functional.cross_entropy(out, y, reduction="sum"))
        correct += float((out.argmax(1) == y).sum())
    loss /= len(data[0])
    return (loss if isfinite(loss) else float("inf")), correct / len(data[0])


def tune(
    record: Record,
    batch: int,
    steps: int,
    seed: int,
    data: dict[str, tuple[Tensor, Tensor]],
    build: Callable[[int], nn.Module] = network,
) -> None:
    """Every optimizer's run of its grid with the lowest validation loss, with its learning rate."""
    tuning = EqualTuning("lower")
    for name, (make, grid) in arms().items():

        def attempt(lr: float, make: Make = make) -> tuple[float, nn.Module]:
            model = train(make, lr, batch, steps, seed, data["train"], build)
            return evaluate(model, data["val"])[0], model

        arm = f"{name}, batch {batch}"
        chosen = tuning.choose(arm, grid, attempt)
        values = {
            "train loss": evaluate(chosen.found, data["train"])[0],
            "test accuracy": evaluate(chosen.found, data["test"])[1],
            "learning rate": chosen.value,
        }
        record.update(seed, 0, {f"{arm}: {k}": v for k, v in values.items()})
        chosen.note(record, arm, seed)


def run(config: Any, seed: int, record: Record) -> None:
    """Every optimizer with its grid, for each batch size."""
    data = split(seed)
    for batch in BATCHES[config.size]:
        tune(record, batch, STEPS[config.size], seed, data)


def compare(record: Record, batch: int) -> pd.DataFrame:
    """Mean and spread over seeds of what the validation split chose."""
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
                "tuning": remarks(record, f"{name}, batch {batch}"),
            }
        )
    return pd.DataFrame(rows)


def tables(config: Any, record: Record) -> dict[str, pd.DataFrame]:
    """One table a batch size."""
    steps = STEPS[config.size]
    return {f"batch {b}, {steps} steps": compare(record, b) for b in BATCHES[config.size]}
