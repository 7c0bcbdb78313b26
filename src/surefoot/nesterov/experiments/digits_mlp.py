"""A network on digits where acceleration works and the promise covers only part of the way.

64 images of scikit-learn's digits, 64-32-10 tanh, mean squared error on one-hot targets, float64,
full batch; the anchor is the last iterate, so each run is replayed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from surefoot.certificate import Certificate
from surefoot.guarantee import Verdict
from surefoot.nesterov.experiments.ledgers import first_below, restore, run_gd, run_nag, store
from surefoot.record import Record

L_PATH = 4.977  # largest Hessian eigenvalue met on the way, with a margin of 5 %


@dataclass(frozen=True)
class Arm:
    """One run: the mu that is asked for, the L that is believed, how long, how much is judged."""

    mu: float
    L: float
    steps: int
    judge: int | None = None


ARMS = {
    "digits MLP, mu = 1e-3": Arm(1e-3, L_PATH, 7000, 3000),
    "digits MLP, mu = 1e-3, L halved": Arm(1e-3, L_PATH / 2.5, 400),
    "digits MLP, mu = 1e-4, L halved": Arm(1e-4, L_PATH / 2, 400),
}
EXPECTS = dict.fromkeys(ARMS, Verdict.NOT_PROMISED)


def network() -> tuple[nn.Module, Callable[[], Tensor]]:
    """The network at its recorded start, and its full-batch loss."""
    x, y = load_digits(return_X_y=True)
    images = torch.tensor(x[:64] / 16, dtype=torch.float64)
    targets = nn.functional.one_hot(torch.tensor(y[:64]), 10).double()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        before = torch.get_default_dtype()
        torch.set_default_dtype(torch.float64)
        try:
            model = nn.Sequential(nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 10))
        finally:
            torch.set_default_dtype(before)
    return model, lambda: nn.functional.mse_loss(model(images), targets)


def run(config: Any, seed: int, record: Record) -> None:
    """All arms, and gradient descent with the same L."""
    for name, arm in ARMS.items():
        model, f = network()
        ran = run_nag(
            model.parameters(), f, mu=arm.mu, eta=1 / arm.L, steps=arm.steps, judge=arm.judge
        )
        store(record, seed, name, ran.measured)
        record.extend(seed, f"{name}: loss", ran.losses)
        record.append(seed, 0, **{f"{name}: warned": float(ran.warned is not None)})
    model, f = network()
    record.extend(
        seed, "gradient descent", run_gd(model.parameters(), f, eta=1 / L_PATH, steps=3000)
    )


def certificates(config: Any, record: Record) -> list[Certificate]:
    """One certificate an arm."""
    return [restore(record, name) for name in ARMS]


def tables(config: Any, record: Record) -> dict[str, pd.DataFrame]:
    """What failed, when, and where the loss went."""
    rows = []
    for name in ARMS:
        found = restore(record, name)
        losses = record[f"{name}: loss"][0]
        smooth = np.flatnonzero(found.terms["D"] > 1e-10 * found.measured)
        above = np.flatnonzero(losses[1:] > losses[0])
        rows.append(
            {
                "run": name,
                "verdict": found.landscape,
                "warned": bool(record.constant(f"{name}: warned")[0]),
                "first smoothness failure": int(smooth[0]) if len(smooth) else None,
                "loss passes its start": int(above[0]) + 1 if len(above) else None,
                "last loss": float(losses[-1]),
                "steps to 1e-4": first_below(losses, 1e-4),
            }
        )
    rows.append(
        {
            "run": "gradient descent, eta = 1/L",
            "last loss": float(record["gradient descent"][0, -1]),
            "steps to 1e-4": first_below(record["gradient descent"][0], 1e-4),
        }
    )
    return {"runs": pd.DataFrame(rows)}
