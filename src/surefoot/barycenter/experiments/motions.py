"""Four activities told apart by the nearest class mean, with spoilt recordings in the training set."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float64, Int64

from surefoot import data
from surefoot.barycenter.doors.pyriemann import mean_suot, nearest_mean
from surefoot.barycenter.experiments.estimators import contaminate, geometric
from surefoot.record import Record

SHARE = 0.3
KINDS = ("clean", "burst", "flat")


def _median(X: Any, sample_weight: Any = None) -> Any:
    return geometric(X, median=True)


MEANS: dict[str, Any] = {
    "Wasserstein": mean_suot(tau=math.inf),
    "affine-invariant": "riemann",
    "affine-invariant median": _median,
    "harmonic": "harmonic",
    "SUOT fixed, tau .01": mean_suot(tau=0.01),
    "SUOT fixed, tau .1": mean_suot(tau=0.1),
    "SUOT fixed, tau 1": mean_suot(tau=1.0),
    "SUOT free, tau 1, median temperature": mean_suot(tau=1.0, mass="free", mass_tau="median"),
    "SUOT free, tau 1, the paper's temperature": mean_suot(tau=1.0, mass="free"),
}
"""What pyRiemann's MDM takes as a mean; its own ones by their names."""


def covariances(
    config: Any,
) -> tuple[
    Float64[np.ndarray, "n d d"],
    Int64[np.ndarray, "n"],
    Float64[np.ndarray, "t d d"],
    Int64[np.ndarray, "t"],
]:
    """Covariances and classes for training and test, all over the mean trace/d of the training set."""
    trials = data.load("basic_motions", config.motions)
    train, test = (np.stack([np.cov(t) for t in x]) for x in (trials.x, trials.x_test))
    scale = np.trace(train, axis1=1, axis2=2).mean() / train.shape[-1]
    return train / scale, trials.y, test / scale, trials.y_test


def spoil(
    covs: Float64[np.ndarray, "n d d"], y: Int64[np.ndarray, "n"], kind: str, seed: int
) -> Float64[np.ndarray, "n d d"]:
    """30 % of each class spoilt, see `estimators.contaminate`."""
    out, rng = covs.copy(), np.random.default_rng(seed)
    for c in np.unique(y) if kind != "clean" else ():
        out[y == c] = contaminate(covs[y == c], kind, SHARE, rng)
    return out


def run(config: Any, seed: int, record: Record) -> None:
    """Accuracy on clean recordings of the nearest mean (affine-invariant distance), for each average."""
    # First, as it may refuse: nothing is fetched for what cannot run.
    models = {name: nearest_mean(mean) for name, mean in MEANS.items()}
    train, y, test, y_test = covariances(config)
    for kind in KINDS:
        spoilt = spoil(train, y, kind, seed)
        for name, model in models.items():
            score = model.fit(spoilt, y).score(test, y_test)
            record.update(seed, 0, {f"{kind} {name}": float(score)})


def tables(config: Any, record: Record) -> dict[str, pd.DataFrame]:
    """Mean accuracy over seeds, and the worst."""
    rows = [
        {"average": m}
        | {k: float(record.constant(f"{k} {m}").mean()) for k in KINDS}
        | {f"{k} worst": float(record.constant(f"{k} {m}").min()) for k in KINDS[1:]}
        for m in MEANS
    ]
    return {
        "accuracy on clean recordings, 3 of 10 for training spoilt in each activity, mean and worst": (
            pd.DataFrame(rows)
        )
    }
