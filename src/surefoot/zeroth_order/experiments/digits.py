"""The explicit bound on a real convex problem: softmax regression on digits, L known (part digits)."""

from __future__ import annotations

from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from surefoot._problems.convex import Problem
from surefoot._problems.softmax import softmax_on
from surefoot.guarantee import Guarantee
from surefoot.record import Record
from surefoot.zeroth_order.bounds import Bound, Constants, lozo_bound
from surefoot.zeroth_order.guarantee import gradient_guarantee
from surefoot.zeroth_order.lozo import LOZO

COLUMN = "mean_squared_gradient"
RANK, NU = 2, 10
PERIODS = {"quick": 30, "standard": 200, "paper": 1000}


def problem() -> Problem:
    """All digits with a 1 appended, no ridge: L = lambda_max(X^T X) / (2 N)."""
    return softmax_on("digits", 0.0, bias=True)


def loss(w: Tensor) -> Tensor:
    """Mean cross-entropy."""
    return problem().f(w)


def smooth() -> float:
    """L."""
    return problem().L


def constants() -> Constants:
    """Full batches: no noise; Delta_0 is the loss at 0, since f* >= 0."""
    shape = (problem().m, problem().n)
    return Constants(smooth(), 0.0, float(loss(torch.zeros(shape, dtype=torch.float64))))


def bound(size: Any) -> Bound:
    """At the best rate."""
    shape = (problem().m, problem().n)
    return lozo_bound([shape], RANK, NU, NU * PERIODS[size], *constants())


def run(config: Any, seed: int, record: Record) -> None:
    """LOZO at the bound's own rate: the mean squared gradient at period starts."""
    w = nn.Parameter(torch.zeros(10, problem().n, dtype=torch.float64))
    optimizer = LOZO(
        [w], bound(config.size).alpha, rank=RANK, nu=NU, eps=1e-4, v_dist="orthogonal", seed=seed,
        record=record,
    )  # fmt: skip
    for t in range(NU * PERIODS[config.size]):
        if t % NU == 0:
            optimizer.measure_gradient(lambda: loss(w))
        optimizer.step(lambda: loss(w))
    record.append(seed, 0, **{"last loss": float(loss(w.detach()))})
    optimizer.fd_error(lambda: loss(w))


def guarantees(config: Any) -> list[Guarantee]:
    """The bound beside the run."""
    known = constants()
    return [
        gradient_guarantee(
            L=known.L, sigma2=known.sigma2, delta0=known.delta0, name="bound: digits",
            how="L = lambda_max(X^T X) / 2N, f* >= 0", trivial=2 * known.L * known.delta0,
        )
    ]  # fmt: skip


def tables(config: Any, record: Record) -> dict[str, pd.DataFrame]:
    """Promised and measured."""
    found = bound(config.size)
    measured = record.constant(COLUMN).mean()
    row = {
        "L": smooth(), "alpha": found.alpha, "bound": found.value, "measured": measured,
        "bound / measured": found.value / measured, "last loss": record.constant("last loss").mean(),
        "largest finite-difference error": record.constant("fd_error").max(),
    }  # fmt: skip
    return {"softmax regression on digits": pd.DataFrame([row])}
