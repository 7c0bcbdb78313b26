"""The arms of the ablation: a strategy each, all with the same budget on the same split."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from surefoot.architecture._estimator.searches import ALONE
from surefoot.architecture._fit.budget import Budget
from surefoot.architecture._fit.candidates import Candidate
from surefoot.architecture._fit.objective import Rows, mean_loss
from surefoot.architecture._fit.portfolio import LINEAR, Search, Settings, race
from surefoot.architecture._fit.searched import Searched, as_read, as_searched
from surefoot.architecture._peers.dense import (
    Peer,
    peers_problem,
    points_of,
)
from surefoot.architecture.autoencoder import NetworkAutoencoder
from surefoot.architecture.baselines import random_decoder, random_features
from surefoot.architecture.doors.optuna import optuna_and_pruning
from surefoot.architecture.doors.torch_pruning import structured_pruning
from surefoot.architecture.estimators import CompactMLPClassifier, CompactMLPRegressor
from surefoot.architecture.experiments.real_tables import Split
from surefoot.architecture.pareto import ParetoPoint
from surefoot.architecture.space import MLPSpace

METHOD, PEER = "portfolio", "Optuna + pruning"


@dataclass(frozen=True)
class Given:
    """What every arm is given.

    Attributes
    ----------
    table
        Only its rows for the fit are read.
    seconds
        CPU seconds of this process.
    seed
        Of the inner split and of everything random.
    decoder
        A trained one; its training is not counted.
    """

    table: Split
    seconds: float
    seed: int
    decoder: NetworkAutoencoder

    def budget(self) -> Budget:
        """Starts now."""
        return Budget(self.seconds, None, clock=time.process_time)


Arm = Callable[[Given], list[ParetoPoint]]


def estimator(**settings: Any) -> Arm:
    """The estimator as a user gets it, on the clock of the process.

    Parameters
    ----------
    **settings
        Its parameters; "trained" and "untrained" in place of an autoencoder.
    """

    def fit(given: Given) -> list[ParetoPoint]:
        own = dict(settings)
        if own.get("autoencoder") == "trained":
            own["autoencoder"] = given.decoder
        elif own.get("autoencoder") == "untrained":
            own["autoencoder"] = random_decoder(given.decoder.space, given.seed)
        kind = CompactMLPClassifier if given.table.classifies else CompactMLPRegressor
        model = kind(time_budget=given.seconds, random_state=given.seed, **own)
        model._clock = time.process_time
        return list(model.fit(given.table.X, given.table.y).pareto_)

    return fit


def peer(fill: Callable[[Peer], None]) -> Arm:
    """Dense networks, and what is done with them.

    Parameters
    ----------
    fill
        Spends the budget of a `Peer`.
    """

    def fit(given: Given) -> list[ParetoPoint]:
        budget = given.budget()
        one = Peer(
            peers_problem(given.table.X, given.table.y, given.table.classifies, given.seed),
            budget, given.seed,
        )  # fmt: skip
        fill(one)
        return one.points()

    return fit


def raced(search: Callable[[Given], Search], share: float, prune: bool) -> Arm:
    """One search alone, in the race that the estimators run.

    Parameters
    ----------
    search
        Makes the source of candidates.
    share
        Of the budget, for it and the linear models.
    prune
        Whether the common pruning path follows.
    """

    def fit(given: Given) -> list[ParetoPoint]:
        budget, table = given.budget(), given.table
        rows = peers_problem(table.X, table.y, table.classifies, given.seed)
        found = race(
            rows.rows(rows.training), rows.rows(rows.validation), np.flatnonzero(rows.by.varies),
            Settings(16, 2, ("tanh", "relu"), 1e-4, prune, 1), budget,
            np.random.default_rng(given.seed), [(share - LINEAR, search(given))], 0.0,
            lambda line: None,
        )  # fmt: skip
        return points_of(found, rows)

    return fit


def _as_found(decoder: bool) -> Callable[[Given], Search]:
    def search(given: Given) -> Search:
        return Searched(
            "direct", given.decoder if decoder else None, 16, 2, ("tanh", "relu"),
            (0.003, 0.03, 0.15, 0.6), 8, 1e-4, given.seed, fit=0,
        )  # fmt: skip

    return search


def _random_features(given: Given) -> Search:
    def search(
        train: Rows, validation: Rows, inputs: np.ndarray, budget: Budget
    ) -> Iterator[Candidate]:
        x, y, task, order = as_searched(train, inputs)
        seed = given.seed
        while not budget.over():
            for depth in (1, 2):
                space = MLPSpace(len(inputs), 1, 16, 2, ("tanh", "relu"))
                nets = random_features(space, x, y, task=task, depth=depth, seed=seed)
                for i in range(len(nets)):
                    network = as_read(nets.to_sequential(i), inputs, order)
                    yield Candidate(network, mean_loss(network, validation), "random", 1e-4)
            seed += 1_000_000

    return search


ARMS: Mapping[str, Arm] = {
    METHOD: estimator(),
    PEER: peer(optuna_and_pruning),
    "grid + pruning": peer(Peer.grid_and_prune),
    "dense": estimator(strategy="dense"),
    "direct": estimator(strategy="direct"),
    "trained decoder": estimator(strategy="autoencoder", autoencoder="trained"),
    "untrained decoder": estimator(strategy="autoencoder", autoencoder="untrained"),
    "portfolio with the decoder": estimator(autoencoder="trained"),
    "portfolio, tanh alone": estimator(activations=("tanh",)),
    "portfolio, not pruned": estimator(prune=False),
    "direct, as found": raced(_as_found(decoder=False), 1.0, prune=False),
    "trained decoder, as found": raced(_as_found(decoder=True), 1.0, prune=False),
    "random features": raced(_random_features, ALONE, prune=True),
    "grid": peer(Peer.grid),
    "torch-pruning": peer(structured_pruning),
}
"""Most important first: a table is read from the top."""
LEARNT = tuple(name for name in ARMS if "decoder" in name and "untrained" not in name)
"""Those that search in the trained decoder."""
