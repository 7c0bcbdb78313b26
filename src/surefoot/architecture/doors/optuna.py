"""Optuna chooses widths, depth, activation and weight decay; two objectives, the same L-BFGS."""

from __future__ import annotations

from typing import Any

from surefoot.architecture._peers.dense import ACTIVATIONS, TRAINING, Peer
from surefoot.errors import need


def optuna_and_pruning(peer: Peer) -> None:
    """TPE over loss and size for half of the budget, then iterative magnitude pruning of the best.

    Depth 0, the linear model, is among its choices.

    Parameters
    ----------
    peer
        Filled; its seed is that of the sampler.

    Raises
    ------
    MissingExtraError
        Optuna is not installed.
    """
    with need("optuna", extra="bench"):
        import optuna
    said = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    peer.budget.share = TRAINING

    def objective(trial: Any) -> tuple[float, float]:
        widths = [
            trial.suggest_int(f"width{i}", 1, 16) for i in range(trial.suggest_int("depth", 0, 2))
        ]
        c = peer.fit(
            widths, trial.suggest_categorical("activation", list(ACTIVATIONS)),
            trial.suggest_float("alpha", 1e-5, 1e-1, log=True),
        )  # fmt: skip
        if peer.budget.over():
            trial.study.stop()
        return c.val_loss, float(c.network.n_params)

    try:
        study = optuna.create_study(
            directions=["minimize", "minimize"], sampler=optuna.samplers.TPESampler(seed=peer.seed)
        )
        study.optimize(objective)
    finally:
        optuna.logging.set_verbosity(said)
    peer.prune()
