"""The curves of a certificate, thinned for drawing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from surefoot._verdict import evidence
from surefoot.record import Curves

PLOT_POINTS = 400


@dataclass(frozen=True)
class PlotCurve:
    """Measured (mean, lowest, highest seed) and promised values, thinned for drawing."""

    steps: list[int]
    mean: list[float]
    lowest: list[float]
    highest: list[float]
    promised: list[float]


def thinned(curves: Curves, bound: Float[np.ndarray, "seeds steps"]) -> PlotCurve:
    """At most 400 points, close together at the start and spread over the whole."""
    at = np.unique(
        np.concatenate(
            [
                evidence.checked_steps(curves.steps.astype(float), PLOT_POINTS // 2),
                np.linspace(0, len(curves.steps) - 1, PLOT_POINTS // 2).astype(int),
            ]
        )
    )
    y = curves.values[:, at]
    with np.errstate(invalid="ignore", over="ignore"):
        mean, promised = y.mean(axis=0), bound[:, at].mean(axis=0)
    return PlotCurve(
        [int(s) for s in curves.steps[at]],
        mean.tolist(),
        y.min(axis=0).tolist(),
        y.max(axis=0).tolist(),
        promised.tolist(),
    )
