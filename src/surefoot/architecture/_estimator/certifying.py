"""The summary of a fit in words and numbers, and its certificates."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from surefoot.architecture import guarantee as promises
from surefoot.architecture._estimator.points import wrong
from surefoot.architecture._estimator.problem import Problem
from surefoot.architecture._estimator.recording import record_fresh, rounded
from surefoot.architecture._estimator.settings import Checked
from surefoot.architecture.intervals import clopper_pearson_lower
from surefoot.architecture.pareto import ParetoPoint
from surefoot.certificate import Certificate, certify, unmeasured


def summary(
    how: Checked,
    table: Problem,
    points: Sequence[ParetoPoint],
    chosen: ParetoPoint,
    sliced: float,
    folded: float,
    occam: tuple[float, float] | None,
    seconds: float,
) -> dict[str, Any]:
    """`certificate_`: plain numbers and words.

    Parameters
    ----------
    how
        Parameters.
    table
        Raw rows and their split.
    points, chosen
        The front, and which one was chosen.
    sliced, folded
        Deviations of 3.3.
    occam
        The bound of 3.6 and the error rate it starts from; None of a regressor.
    seconds
        Of the wall clock.
    """
    notes = list(table.notes)
    n = len(table.certification)
    limits = [v for p in points for v in (p.cert_bound, p.cert_median) if v is not None]
    if any(math.isinf(v) for v in limits):
        notes.append(f"not certifiable with n={n} certification rows: some limits are infinite")
    if n and np.ptp(table.weight):
        notes.append("certified limits count every row once, whatever its sample_weight")
    dtype = str(chosen.module[-1].weight.dtype).removeprefix("torch.")
    if dtype == "float64":
        notes.append("module_ is float64: in float32 it would be off by more than 1e-5")
    found: dict[str, Any] = {
        "n_params": chosen.n_params, "n_nonzero": chosen.n_nonzero, "source": chosen.source,
        "rows": {
            "training": len(table.training), "validation": len(table.validation),
            "certification": n,
        },
        "slicing_deviation": sliced, "folding_deviation": folded, "dtype": dtype,
        "confidence": how.confidence, "points": len(points) + (how.tol > 0),
        "cert_bound": chosen.cert_bound, "cert_median": chosen.cert_median,
        "seconds": seconds, "time_budget": how.seconds, "steps": how.steps, "notes": notes,
    }  # fmt: skip
    if occam is not None:
        found["occam_bound"], found["occam_train_error"] = occam
    return found


def certificates_of(
    estimator: Any, rows: tuple[np.ndarray, np.ndarray] | None, confidence: float
) -> list[Certificate]:
    """3.3 to 3.7 of a fitted estimator.

    Parameters
    ----------
    estimator
        Fitted.
    rows
        Fresh x and targets, or None.
    confidence
        Of certificates and lower limits.
    """
    record = copy.deepcopy(estimator.record_)
    points, classifies = estimator._points, hasattr(estimator, "classes_")
    certified = points[0].cert_bound is not None
    if rows is not None:
        if certified:
            record_fresh(record, points, *rows, confidence)
        if classifies:
            _record_rounded(record, estimator.chosen_, rows, confidence)
    kinds: tuple[promises.HeldOut, ...] = (
        ("error rate",) if classifies else ("90% absolute error", "median absolute error")
    )
    todo = "fit with certify_fraction > 0 and call certificates(X, y) with fresh rows"
    theorems = [
        (promises.slicing_exactness(), ""),
        (promises.folding_exactness(), ""),
        (promises.pruning_change(), "no weight of this network was pruned"),
        *((promises.held_out_error(kind), todo) for kind in kinds),
    ]
    if classifies:
        theorems.append((promises.occam_error(), "call certificates(X, y) with fresh rows"))
    theorems.append((promises.search_time(), ""))
    return [
        certify(record, g, confidence) if g.quantity in record else unmeasured(record, g, todo)
        for g, todo in theorems
    ]


def _record_rounded(
    record: Any, point: ParetoPoint, rows: tuple[np.ndarray, np.ndarray], confidence: float
) -> None:
    network = rounded(point)
    x, y = rows
    with np.errstate(over="ignore", invalid="ignore"):
        f = network.layers(np.ascontiguousarray(x.T[network.inputs]))[-1].T
    k = int((wrong(f, y) | ~np.isfinite(f).all(axis=1)).sum())
    record.append(0, 0, **{promises.OCCAM: clopper_pearson_lower(k, len(y), confidence)})
