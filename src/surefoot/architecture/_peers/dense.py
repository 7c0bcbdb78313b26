"""Networks of one shape each on an estimator's own split, then iterative pruning, within one budget."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from sklearn.utils import check_random_state

from surefoot.architecture._estimator.points import make_point
from surefoot.architecture._estimator.problem import Problem, problem
from surefoot.architecture._fit.budget import Budget
from surefoot.architecture._fit.candidates import Candidate, front
from surefoot.architecture._fit.lbfgs import fit_network
from surefoot.architecture._fit.objective import Task
from surefoot.architecture._fit.portfolio import constant
from surefoot.architecture._fit.pruning_path import pruning_path
from surefoot.architecture._fit.starts import random_network
from surefoot.architecture.pareto import ParetoPoint

SHAPES = ((), *((w,) for w in (1, 2, 3, 4, 6, 8, 12, 16)), (4, 4), (8, 8), (16, 16))
ACTIVATIONS, DECAYS, FIT = ("tanh", "relu"), (1e-4, 1e-2), 150
TRAINING = 0.5
"""Share of the budget for training where pruning follows."""


def peers_problem(X: np.ndarray, y: np.ndarray, classifies: bool, seed: int) -> Problem:
    """The split that `random_state=seed` gives the estimators: both sides choose by the same rows.

    Parameters
    ----------
    X, y
        Raw rows; classes are 0..C-1.
    classifies
        Whether y are classes.
    seed
        Of the estimator.
    """
    classes = int(y.max()) + 1 if classifies else 1
    task: Task = (
        "softmax" if classifies and classes > 2 else "logistic" if classifies else "squared"
    )
    targets = np.eye(classes)[y] if task == "softmax" else y[:, None].astype(np.float64)
    return problem(
        X, targets, y if classifies else None, np.ones(len(y)), task, validation_fraction=0.2,
        certify_fraction=0.0, seed=int(check_random_state(seed).randint(np.iinfo(np.int32).max)),
    )  # fmt: skip


class Peer:
    """One side of a comparison: it fits, prunes, and has a front.

    Parameters
    ----------
    table
        As `peers_problem` gives it.
    budget
        Of everything.
    seed
        Of the starts, and of whatever else is random.
    """

    def __init__(self, table: Problem, budget: Budget, seed: int) -> None:
        self.table, self.budget, self.seed = table, budget, seed
        self.rng = np.random.default_rng(seed)
        self.train, self.validation = table.rows(table.training), table.rows(table.validation)
        self.inputs = np.flatnonzero(table.by.varies)
        self.found = [constant(self.train, self.validation)]

    def fit(self, widths: Sequence[int], activation: str, alpha: float) -> Candidate:
        """A network of this shape from one random start.

        Parameters
        ----------
        widths
            Of the hidden layers; none is the linear model.
        activation
            Of all neurons.
        alpha
            Weight decay.
        """
        start = random_network(self.inputs, len(self.train.y), widths, activation, self.rng)
        fitted = fit_network(
            start, self.train, self.validation, alpha, FIT, self.budget, keep_zeros=False
        )
        found = Candidate(fitted.network, fitted.val_loss, "peer", alpha)
        self.found.append(found)
        return found

    def best(self) -> list[Candidate]:
        """What was fitted, the least validation loss first."""
        return sorted(self.found[1:], key=lambda c: c.val_loss)

    def grid(self, share: float = 1.0) -> None:
        """All shapes, activations and decays again and again.

        Parameters
        ----------
        share
            Of the budget.
        """
        self.budget.share = share
        while not self.budget.over():
            for alpha in DECAYS:
                for widths in SHAPES:
                    for activation in ACTIVATIONS:
                        if not self.budget.over():
                            self.fit(widths, activation, alpha)

    def grid_and_prune(self) -> None:
        """The grid for half of the budget, then pruning."""
        self.grid(TRAINING)
        self.prune()

    def prune(self) -> None:
        """Iterative magnitude pruning of one network after the other, the best first, until the end."""
        self.budget.share = 1.0
        for c in self.best():
            if self.budget.over():
                return
            steps = pruning_path(
                c.network, self.train, self.validation, c.alpha, self.budget, criterion="magnitude"
            )
            self.found += [Candidate(s.network, s.val_loss, "peer", c.alpha) for s in steps]

    def points(self) -> list[ParetoPoint]:
        """The front by validation loss."""
        return points_of(self.found, self.table)


def points_of(found: Sequence[Candidate], table: Problem) -> list[ParetoPoint]:
    """The front of candidates, as networks on raw rows.

    Parameters
    ----------
    found
        Any candidates.
    table
        The rows of the fit.
    """
    judged = table.rows(table.validation)
    return [
        make_point(c, table, judged, 0.95, 1, table.training)
        for c in front(found, table.task == "squared")
    ]
