"""L-BFGS on one small network, keeping the iterate of best validation loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import minimize

from surefoot.architecture._fit.budget import Budget
from surefoot.architecture._fit.network import Array, Network
from surefoot.architecture._fit.objective import Objective, Rows

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
    ftol: float = 1e-9,
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
    ftol
        Stop where an iteration lowers the objective by less, relatively.
    """
    objective = Objective(network, train, alpha, keep_zeros)
    h0 = np.ascontiguousarray(validation.x[network.inputs])
    done, waiting = 0, 0

    with np.errstate(over="ignore", invalid="ignore"):
        best, best_loss = objective.theta, objective.loss(objective.theta, h0, validation)

        def after(intermediate_result: Any) -> None:
            nonlocal best, best_loss, done, waiting
            done += 1
            budget.spend(1)
            if done % EVERY == 0 or done == iterations:
                theta: Array = intermediate_result.x
                found = objective.loss(theta, h0, validation)
                waiting = 0 if found < best_loss else waiting + 1
                if found < best_loss:
                    best, best_loss = theta.copy(), found
            if waiting >= PATIENCE or budget.over():
                raise StopIteration

        result = minimize(
            objective, objective.theta, jac=True, method="L-BFGS-B", callback=after,
            options={"maxiter": max(1, iterations), "maxcor": 10, "ftol": ftol, "gtol": 1e-7},
        )  # fmt: skip
        found = objective.loss(result.x, h0, validation)
    if found < best_loss:
        best, best_loss = result.x, found
    return Fitted(objective.at(best), best_loss, done)
