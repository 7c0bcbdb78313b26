"""L-BFGS on one small network, keeping the iterate of best validation loss."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize

from surefoot.architecture._fit.budget import Budget
from surefoot.architecture._fit.network import Array, Network
from surefoot.architecture._fit.objective import Objective, Rows, mean_loss

EVERY = 5
PATIENCE = 8


@dataclass(frozen=True)
class Fitted:
    """A network, its validation loss, and the iterations that it took."""

    network: Network
    val_loss: float
    iterations: int


def fit_network(
    network: Network,
    train: Rows,
    validation: Rows,
    alpha: float,
    iterations: int,
    budget: Budget,
    *,
    keep_zeros: bool,
) -> Fitted:
    """At most so many iterations, fewer where the budget ends or the validation loss stops to fall.

    Parameters
    ----------
    network
        Where to start.
    train, validation
        What is descended on, and what chooses the iterate.
    alpha
        Weight decay.
    iterations
        The most there may be.
    budget
        What is spent.
    keep_zeros
        Whether entries that are zero stay so.
    """
    objective = Objective(network, train, alpha, keep_zeros)
    best, best_loss = objective.theta, _loss(objective, objective.theta, validation)
    done, waiting = 0, 0

    def after(intermediate_result: object) -> None:
        nonlocal best, best_loss, done, waiting
        done += 1
        budget.spend(1)
        theta: Array = getattr(intermediate_result, "x")
        if done % EVERY == 0 or done == iterations:
            found = _loss(objective, theta, validation)
            waiting = 0 if found < best_loss else waiting + 1
            if found < best_loss:
                best, best_loss = theta.copy(), found
        if waiting >= PATIENCE or budget.over():
            raise StopIteration

    with np.errstate(over="ignore", invalid="ignore"):
        result = minimize(
            objective, objective.theta, jac=True, method="L-BFGS-B", callback=after,
            options={"maxiter": max(1, iterations), "maxcor": 10, "ftol": 1e-10, "gtol": 1e-7},
        )  # fmt: skip
        found = _loss(objective, result.x, validation)
    if found < best_loss:
        best, best_loss = result.x, found
    return Fitted(objective.at(best), best_loss, done)


def _loss(objective: Objective, theta: Array, rows: Rows) -> float:
    value = mean_loss(objective.at(theta), rows)
    return value if math.isfinite(value) and np.isfinite(theta).all() else math.inf
