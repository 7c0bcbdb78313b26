"""Unit steps do not feel the dimension, but slow down like 1/tau; `bb` does not."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from jaxtyping import Float64
from sklearn.exceptions import ConvergenceWarning

from surefoot.barycenter.barycenter import suot_barycenter
from surefoot.barycenter.experiments.figures import Line, lines
from surefoot.record import Record

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

TAUS = (0.1, 1.0, 10.0)
DIMENSIONS = {"quick": (5, 20), "standard": (5, 20, 50, 100), "paper": (5, 20, 50, 100, 200)}
ACCELERATED = {"quick": (0.1, 1.0, 100.0), "standard": (0.01, 0.1, 1.0, 100.0)}
SHAPE = {"quick": (20, 10), "standard": (100, 22), "paper": (100, 22)}
WORDS = {"eggd": "unit steps", "bb": "Barzilai-Borwein steps"}
LIMIT = {"quick": 300, "standard": 600, "paper": 1500}


def random_covs(seed: int, n: int, d: int, low: float, high: float) -> Float64[np.ndarray, "n d d"]:
    """Eigenvalues uniform in [low, high], random rotations."""
    rng = np.random.default_rng(seed)
    Q = np.linalg.qr(rng.standard_normal((n, d, d)))[0]
    A = (Q * rng.uniform(low, high, (n, d))[:, None]) @ Q.swapaxes(-1, -2)
    return np.asarray((A + A.swapaxes(-1, -2)) / 2)


def run_dimension(config: Any, seed: int, record: Record) -> None:
    """Unit steps from 0.55 I until F - F* has shrunk by 1e-6; n = 10, spectra in [.1, 1]."""
    for d in DIMENSIONS[config.size]:
        covs = random_covs(seed, 10, d, 0.1, 1)
        for tau in TAUS:
            best = suot_barycenter(covs, tau=tau, tol=1e-11, record=False).value
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)
                r = suot_barycenter(
                    covs, tau=tau, method="eggd", init=0.55 * np.eye(d), max_iter=60, tol=1e-12
                )
            gap = r.history["F"].to_numpy() - best
            there = np.flatnonzero(gap <= 1e-6 * gap[0])
            if len(there):  # of what was not reached there is no step
                record.update(seed, 0, {f"{tau:g} {d}": float(there[0])})


def dimension_tables(config: Any, record: Record) -> dict[str, pd.DataFrame]:
    """Steps by tau and dimension, mean over seeds."""
    rows = [
        {"tau": tau}
        | {
            f"d = {d}": record.constant(q).mean()
            if (q := f"{tau:g} {d}") in record
            else "not reached"
            for d in DIMENSIONS[config.size]
        }
        for tau in TAUS
    ]
    return {"unit steps until F - F* has shrunk by 1e-6": pd.DataFrame(rows)}


def _taus(config: Any) -> tuple[float, ...]:
    return ACCELERATED.get(config.size, (0.001, *ACCELERATED["standard"]))


def run_acceleration(config: Any, seed: int, record: Record) -> None:
    """Steps of `eggd` and `bb` until ||G||_B <= 1e-8 sqrt(tr B); spectra in [.01, 1]."""
    n, d = SHAPE[config.size]
    covs = random_covs(seed, n, d, 0.01, 1)
    for tau in _taus(config):
        for method in ("eggd", "bb"):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)
                r = suot_barycenter(
                    covs, tau=tau, method=method, max_iter=LIMIT[config.size], record=False
                )
            record.update(
                seed, 0, {f"{method} {tau:g}": r.n_iter, f"{method} {tau:g} done": r.converged}
            )


def acceleration_tables(config: Any, record: Record) -> dict[str, pd.DataFrame]:
    """Mean steps over seeds, and the share of runs that arrived within the limit."""
    rows = []
    for tau in _taus(config):
        row: dict[str, Any] = {"tau": tau}
        for method, words in WORDS.items():
            row[words] = record.constant(f"{method} {tau:g}").mean()
            row[f"{words}, share that arrived"] = record.constant(f"{method} {tau:g} done").mean()
        rows.append(row)
    limit = LIMIT[config.size]
    return {f"steps until ||G||_B <= 1e-8 sqrt(tr B), at most {limit}": pd.DataFrame(rows)}


def acceleration_figures(config: Any, record: Record) -> dict[str, Figure]:
    """Steps over tau, both on log axes: a slope of -1 is the slowdown like 1/tau."""
    taus = _taus(config)
    found = {
        words: Line(
            taus, [float(record.constant(f"{m} {t:g}").mean()) for t in taus], i, False, True
        )
        for i, (m, words) in enumerate(WORDS.items())
    }
    title = f"steps to a gradient of 1e-8, cut off at {LIMIT[config.size]}"
    return {title: lines(found, "tau", "steps", log_x=True)}
