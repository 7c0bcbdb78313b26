"""Descent under clipping and noise where L is known: softmax regression on digits (part private-descent).

The quantity takes a gradient of every private example before every step: its column is private, and no page
shows it.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

import surefoot
from surefoot.certificate import Certificate
from surefoot.guarantee import Guarantee
from surefoot.record import Record
from surefoot.zeroth_order.experiments.private_arms import DELTA, directions
from surefoot.zeroth_order.experiments.private_task import digits, zeros
from surefoot.zeroth_order.lozo import LOZO
from surefoot.zeroth_order.private import Privacy
from surefoot.zeroth_order.private_bounds import PrivateBound, lozo_private_bound
from surefoot.zeroth_order.private_guarantee import descent_guarantee

ROWS, CLIP, SIGMA, RATE = 200, 1.0, 2.0, 0.2
STEPS = {"quick": 60, "standard": 300, "paper": 2000}


def rows() -> tuple[torch.Tensor, torch.Tensor]:
    """The first training digits."""
    task = digits()
    return task.x["train"][:ROWS], task.y["train"][:ROWS]


def constants() -> tuple[float, float]:
    """L of softmax regression with a bias, in closed form; Delta_0 = ln 10 at zero weights, as f* >= 0."""
    x, _ = rows()
    ones = torch.cat([x, torch.ones(len(x), 1, dtype=x.dtype)], dim=1)
    return float(torch.linalg.eigvalsh(ones.T @ ones / len(x))[-1]) / 2, math.log(10)


def bound(size: Any) -> PrivateBound:
    """At the best rate."""
    return lozo_private_bound(
        [(10, 64)], *constants(), clip=CLIP, sigma=SIGMA, q=RATE, population=ROWS, T=STEPS[size], dense=10
    )  # fmt: skip


def run(config: Any, seed: int, record: Record) -> None:
    """DP-LOZO at the bound's own rate, its quantity measured before every step."""
    model, (x, y), privacy = zeros(), rows(), Privacy(SIGMA, CLIP, RATE, ROWS)
    settings = directions(bound(config.size).alpha, seed) | {"eps": 1e-4}
    optimizer = LOZO(model, **settings, self_check=False, privacy=privacy, record=record)
    everyone = torch.arange(ROWS)

    def losses(at: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(model(x[at]), y[at], reduction="none")

    for drawn in privacy.sampler(steps=STEPS[config.size]):
        optimizer.measure_descent(lambda: losses(everyone))
        optimizer.step(losses, torch.tensor(drawn, dtype=torch.long))


def guarantees(config: Any) -> list[Guarantee]:
    """With what the log holds of each step, and with nothing but the settings."""
    L, delta0 = constants()
    how, trivial = "L = lambda_max(X^T X) / 2N, f* >= 0", 2 * L * delta0
    return [
        descent_guarantee(L=L, delta0=delta0, how=how, trivial=trivial),
        descent_guarantee(L=L, delta0=delta0, how=how, trivial=trivial, closed=True,
                          name="descent under clipping and noise, from the settings alone"),
    ]  # fmt: skip


def certificates(config: Any, record: Record) -> list[Certificate]:
    """The rest of the one list: privacy, the last iterate, the theorem of plain gradients."""
    found = surefoot.certificates(record, delta=DELTA)
    return [c for c in found if c.details.get("claim") != "Z"]
