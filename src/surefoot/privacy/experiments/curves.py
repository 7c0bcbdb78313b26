"""Proven, heuristic and full-batch epsilon against the number of steps. Nothing is trained."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from surefoot.guarantee import Guarantee
from surefoot.privacy.composition import standard
from surefoot.privacy.figures import curve_figure, gain_figure
from surefoot.privacy.gaussian_mechanism import full_batch
from surefoot.privacy.guarantee import postprocessing_claim
from surefoot.privacy.heuristic import last_iterate
from surefoot.record import Record

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

DELTA = 1e-6
SETTINGS = {"quick": 3, "standard": 5, "paper": 5}
ALL = ((0.5, 0.01), (1.0, 0.01), (2.0, 0.1), (0.8, 0.001), (5.0, 0.2))
POINTS = {"quick": 5, "standard": 19, "paper": 49}
GRID_SIGMAS, GRID_RATES = (0.5, 0.8, 1.0, 2.0, 4.0), (0.001, 0.01, 0.1, 0.3)
GRID_STEPS = {"quick": 0, "standard": 1000, "paper": 1000}


def names(sigma: float, q: float) -> tuple[str, str, str]:
    """The columns of one setting: heuristic, standard, full batch."""
    words = f"sigma {sigma:g}, q {q:g}"
    return f"{words}: heuristic", f"{words}: standard", f"{words}: full batch"


def run(config: Any, seed: int, record: Record) -> None:
    """Every curve over T = 1 ... 10^6, and the gain over a grid of (q, sigma)."""
    steps = np.unique(np.round(np.geomspace(1, 10**6, POINTS[config.size])).astype(int))
    for sigma, q in ALL[: SETTINGS[config.size]]:
        plausible, proven, simple = names(sigma, q)
        for t in map(int, steps):
            record.append(seed, t, **{plausible: last_iterate(sigma, q, t).epsilon(DELTA).value})
            record.append(seed, t, **{proven: standard(sigma, q, t).epsilon(DELTA).value})
            record.append(seed, t, **{simple: full_batch(sigma, q, t).epsilon(DELTA).value})
    t = GRID_STEPS[config.size]
    if t:
        for i, sigma in enumerate(GRID_SIGMAS):
            for j, q in enumerate(GRID_RATES):
                ratio = standard(sigma, q, t).epsilon(DELTA).value
                ratio /= last_iterate(sigma, q, t).epsilon(DELTA).value
                record.append(seed, i * len(GRID_RATES) + j, gain=ratio)


def guarantees(config: Any) -> list[Guarantee]:
    """Publishing the last iterate only is post-processing of publishing all: the value cannot be larger."""
    return [
        postprocessing_claim(
            plausible,
            proven,
            name=f"linear losses leak no more than composition, sigma {sigma:g}, q {q:g}",
        )
        for sigma, q in ALL[: SETTINGS[config.size]]
        for plausible, proven, _ in [names(sigma, q)]
    ]


def tables(config: Any, record: Record) -> dict[str, pd.DataFrame]:
    """Epsilon at delta 1e-6, and how much smaller the heuristic is."""
    rows = []
    for sigma, q in ALL[: SETTINGS[config.size]]:
        curves = [record.curves(name) for name in names(sigma, q)]
        for i, t in enumerate(curves[0].steps):
            h, s, f = (c.values[0, i] for c in curves)
            rows.append(
                {"sigma": sigma, "q": q, "T": int(t), "standard (guarantee)": s,
                 "heuristic (no guarantee)": h, "full batch": f, "standard / heuristic": s / h}
            )  # fmt: skip
    return {"epsilon at delta 1e-6": pd.DataFrame(rows)}


def figures(config: Any, record: Record) -> dict[str, Figure]:
    """One picture per setting, and the gain as a heat map."""
    found = {}
    for sigma, q in ALL[: SETTINGS[config.size]]:
        h, s, f = (record.curves(name) for name in names(sigma, q))
        curves = (list(s.values[0]), list(h.values[0]), list(f.values[0]))
        found[f"epsilon over T, sigma {sigma:g}, q {q:g}"] = curve_figure(h.steps, curves, DELTA)
    if "gain" in record:
        ratio = record.curves("gain").values[0].reshape(len(GRID_SIGMAS), len(GRID_RATES))
        t = GRID_STEPS[config.size]
        found["proven over heuristic"] = gain_figure(
            np.array(GRID_RATES), np.array(GRID_SIGMAS), ratio.T, f"T = {t}, delta {DELTA:g}"
        )
    return found
