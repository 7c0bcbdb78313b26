"""From candidates to points of the front: folded, counted, certified."""

from __future__ import annotations

import math

import numpy as np

from surefoot.architecture._estimator.problem import Problem
from surefoot.architecture._fit.candidates import Candidate
from surefoot.architecture._fit.objective import Rows, losses
from surefoot.architecture.compaction import count_parameters
from surefoot.architecture.folding import folded_module, run_module
from surefoot.architecture.intervals import clopper_pearson_upper, quantile_upper_bound
from surefoot.architecture.pareto import ParetoPoint

MOST_CHECKED = 5_000
"""Rows on which every point of the front is checked; the chosen one is checked on all of them."""


def checked_rows(table: Problem) -> np.ndarray:
    """The training rows on which every point's module is compared."""
    n = len(table.training)
    if n <= MOST_CHECKED:
        return table.training
    return np.asarray(table.training[np.linspace(0, n - 1, MOST_CHECKED).astype(int)])


def make_point(
    candidate: Candidate,
    table: Problem,
    validation: Rows,
    confidence: float,
    points: int,
    rows: np.ndarray,
) -> ParetoPoint:
    """One point.

    Parameters
    ----------
    candidate
        The network on standardised rows.
    table
        Raw rows and their split.
    validation
        Its standardised validation rows.
    confidence
        Of all certified limits together.
    points
        How many share it.
    rows
        On which the module is checked.
    """
    network = candidate.network
    module, off = folded_module(network, table.by, table.x[rows])
    n_params, n_nonzero = count_parameters(module)
    each = losses(network.layers(validation.x[network.inputs])[-1], validation.y, table.task)
    limit, median = _limits(
        run_module(module, table.x[table.certification]), table, confidence, points
    )
    return ParetoPoint(
        n_params=n_params, n_nonzero=n_nonzero, source=candidate.source, depth=network.depth,
        widths=network.widths, activations=network.activations,
        val_loss=float(each @ validation.weight), cert_bound=limit, module=module,
        standard_error=_standard_error(each, validation.weight), cert_median=median,
        folding_deviation=off,
    )  # fmt: skip


def _standard_error(each: np.ndarray, weight: np.ndarray) -> float:
    """Of the weighted mean; std / sqrt(n) where all weigh the same."""
    mean = float(each @ weight)
    spread = float(weight @ (each - mean) ** 2)
    return math.sqrt(spread * float(weight @ weight))


def wrong(f: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Whether each row is classified wrongly, of logits (n, K) or (n, 1) and targets of that shape."""
    if y.shape[1] == 1:
        return np.asarray((f[:, 0] > 0) != (y[:, 0] > 0.5))
    return np.asarray(f.argmax(axis=1) != y.argmax(axis=1))


def absolute_error(f: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The largest |error| over the outputs of each row."""
    return np.asarray(np.abs(f - y).max(axis=1, initial=0.0))


def _limits(
    f: np.ndarray, table: Problem, confidence: float, points: int
) -> tuple[float | None, float | None]:
    rows = table.certification
    if not len(rows):
        return None, None
    y, delta = table.y[rows], 1 - confidence
    if table.task != "squared":
        k = int(wrong(f, y).sum())
        return clopper_pearson_upper(k, len(rows), 1 - delta / points), None
    error = absolute_error(f, y)
    # Two claims a point.
    level = 1 - delta / (2 * points)
    return quantile_upper_bound(error, 0.9, level), quantile_upper_bound(error, 0.5, level)
