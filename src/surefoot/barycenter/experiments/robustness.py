"""How far bad inputs move each average, on real EEG trials and on digits, where truth is known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float64
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA

from surefoot import data
from surefoot.barycenter.experiments.estimators import DEBIASED, MEANS, contaminate, distance
from surefoot.record import Record

SETS = {"SelfRegulationSCP1": 0.0, "HandMovementDirection": 1e-6, "FingerMovements": 1e-2}
TRIALS, SHARE = 60, 0.3
KINDS = ("burst", "line", "flat")
DIGITS_KINDS = ("clean", "burst", "flat", "mixed")
GROUPS, BAD_GROUPS = 40, 12


def trial_covariances(config: Any, name: str) -> Float64[np.ndarray, "n d d"]:
    """The first 60 trials' covariances over their mean trace/d, with the ridge that the set needs."""
    x = data.load("eeg", config.eeg)[name].x[:TRIALS]
    covs = np.stack([np.cov(trial) for trial in x])
    d = covs.shape[-1]
    covs /= np.trace(covs, axis1=1, axis2=2).mean() / d
    traces = np.trace(covs, axis1=1, axis2=2)[:, None, None] / d
    return np.asarray(covs + SETS[name] * traces * np.eye(d))


def run_eeg(config: Any, seed: int, record: Record) -> None:
    """The shift of each average when 30 % of the trials are spoilt."""
    for name in SETS:
        covs = trial_covariances(config, name)
        clean = {m: mean(covs) for m, mean in MEANS.items()}
        for kind in KINDS:
            spoilt = contaminate(covs, kind, SHARE, np.random.default_rng(seed))
            for m, mean in MEANS.items():
                record.update(seed, 0, {f"{name} {kind} {m}": distance(mean(spoilt), clean[m])})


def eeg_tables(config: Any, record: Record) -> dict[str, pd.DataFrame]:
    """A table a set, mean over seeds."""
    return {
        f"{name}, shift sqrt(W2^2/trace) by 30 % bad trials, mean and worst (less is better)": pd.DataFrame(
            [
                {"average": m}
                | {k: float(record.constant(f"{name} {k} {m}").mean()) for k in KINDS}
                | {f"{k} worst": float(record.constant(f"{name} {k} {m}").max()) for k in KINDS}
                for m in MEANS
            ]
        )
        for name in SETS
    }


def run_digits(config: Any, seed: int, record: Record) -> None:
    """Covariances of 40 groups of digits, 12 of them spoilt, against that of all digits together."""
    x = PCA(12, random_state=0).fit_transform(load_digits().data)
    x = x[np.random.default_rng(0).permutation(len(x))]
    covs = np.stack([np.cov(group.T) for group in np.array_split(x, GROUPS)])
    scale = np.trace(covs, axis1=1, axis2=2).mean() / covs.shape[-1]
    truth, covs = np.cov(x.T) / scale, covs / scale
    for kind in DIGITS_KINDS:
        share = 0.0 if kind == "clean" else BAD_GROUPS / GROUPS
        spoilt = contaminate(covs, kind, share, np.random.default_rng(seed))
        for m, mean in (MEANS | DEBIASED).items():
            record.update(seed, 0, {f"{kind} {m}": distance(mean(spoilt), truth)})


def digits_tables(config: Any, record: Record) -> dict[str, pd.DataFrame]:
    """Distance to the truth, mean over seeds."""
    rows = [
        {"average": m} | {k: float(record.constant(f"{k} {m}").mean()) for k in DIGITS_KINDS}
        for m in MEANS | DEBIASED
    ]
    title = "distance sqrt(W2^2/trace) to the covariance of all digits, 30 % bad groups (less is better)"
    return {title: pd.DataFrame(rows)}
