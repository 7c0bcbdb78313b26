"""The curves of a certificate, thinned for drawing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from surefoot._verdict import evidence
from surefoot.guarantee import Sense
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


def thinned(curves: Curves, bound: Float[np.ndarray, "seeds steps"], sense: Sense) -> PlotCurve:
    """At most 400 steps: what a drawing may not lose is kept, as `kept_steps` says."""
    with np.errstate(invalid="ignore", over="ignore"):
        values, wanted = curves.values, np.broadcast_to(bound, curves.values.shape)
        at = kept_steps(
            values.min(axis=0), values.max(axis=0), _excess(values, wanted, sense), PLOT_POINTS,
            steps=curves.steps,
        )  # fmt: skip
        mean, promised = values[:, at].mean(axis=0), wanted[:, at].mean(axis=0)
    y = values[:, at]
    return PlotCurve(
        [int(s) for s in curves.steps[at]],
        mean.tolist(),
        y.min(axis=0).tolist(),
        y.max(axis=0).tolist(),
        promised.tolist(),
    )


def _excess(
    values: Float[np.ndarray, "seeds steps"], bound: Float[np.ndarray, "seeds steps"], sense: Sense
) -> Float[np.ndarray, " steps"]:
    """How far on the wrong side of the promise the worst seed is, in units of the promise."""
    difference = {"upper": values - bound, "lower": bound - values, "equal": np.abs(values - bound)}
    scale = np.maximum(np.abs(bound), np.finfo(float).tiny)
    excess = np.where(np.isfinite(bound), difference[sense] / scale, -np.inf)
    return np.asarray(excess.max(axis=0))


def kept_steps(
    lowest: Float[np.ndarray, " steps"],
    highest: Float[np.ndarray, " steps"],
    excess: Float[np.ndarray, " steps"],
    most: int,
    *,
    steps: Int[np.ndarray, " steps"] | None = None,
) -> Int[np.ndarray, " kept"]:
    """Which steps a curve keeps that is drawn with fewer.

    The steps are cut into buckets, half of them short ones at the start and half of them of one length. Each
    bucket keeps its first step, its lowest, its highest and the one with the largest excess over the promise:
    no peak goes, and no bucket in which the promise was exceeded looks as if it had been kept.

    Parameters
    ----------
    lowest, highest
        What was measured; equal where one thing was.
    excess
        How far the measured is beyond the promise; above 0: it is.
    most
        How many steps may be kept; with no more than that all are.
    steps
        Where the values stand, for the short buckets; by default 0, 1, 2, ...
    """
    total = len(lowest)
    if total <= most:
        return np.arange(total)
    count = max(2, most // 4 - 1)
    where = (np.arange(total) if steps is None else steps).astype(float)
    starts = np.unique(
        np.concatenate(
            [
                evidence.checked_steps(where, max(2, count // 2)),
                np.linspace(0, total - 1, max(2, count - count // 2)).astype(int),
            ]
        )
    )
    kept = [*starts, total - 1]
    for first, end in zip(starts, [*starts[1:], total], strict=True):
        for values in (-lowest[first:end], highest[first:end], excess[first:end]):
            kept.append(first + int(np.argmax(np.where(np.isnan(values), np.inf, values))))
    return np.unique(kept)
