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
from surefoot.architecture._estimator.recording import Measured, record_fresh, rounded
from surefoot.architecture._estimator.searches import unused
from surefoot.architecture._estimator.settings import Checked
from surefoot.architecture.intervals import clopper_pearson_lower
from surefoot.architecture.pareto import ParetoPoint
from surefoot.certificate import Certificate, certify, unmeasured


def summary(
    how: Checked,
    table: Problem,
    points: Sequence[ParetoPoint],
    seconds: float,
) -> dict[str, Any]:
    """What of `certificate_` is the same whichever point is chosen.

    Parameters
    ----------
    how
        Parameters.
    table
        Raw rows and their split.
    points
        All that are certified together.
    seconds
        Of the wall clock.
    """
    notes = [*table.notes, *unused(how)]
    n = len(table.certification)
    limits = [v for p in points for v in (p.cert_bound, p.cert_median) if v is not None]
    if any(math.isinf(v) for v in limits):
        notes.append(f"not certifiable with n={n} certification rows: some limits are infinite")
    if n and np.ptp(table.weight):
        notes.append("certified limits count every row once, whatever its sample_weight")
    searched = how.autoencoder is not None and not unused(how)
    return {
        "autoencoder": how.autoencoder.digest() if searched else None,
        "rows": {
            "training": len(table.training), "validation": len(table.validation),
            "certification": n,
        },
        "confidence": how.confidence, "points": len(points),
        "seconds": seconds, "time_budget": how.seconds, "steps": how.steps, "notes": notes,
    }  # fmt: skip


def chosen_summary(
    common: dict[str, Any], point: ParetoPoint, measured: Measured
) -> dict[str, Any]:
    """`certificate_`: plain numbers and words.

    Parameters
    ----------
    common
        As `summary` gives it.
    point, measured
        Which one was chosen.
    """
    found, notes = copy.deepcopy(common), list(common["notes"])
    dtype = str(point.module[-1].weight.dtype).removeprefix("torch.")
    if measured.folding > promises.EXACT:
        notes.append(
            f"module_ is off by {measured.folding:.2g} even in float64: a column lies so far from 0, beside "
            "its spread, that raw rows do not hold it; subtract a constant from it"
        )
    elif dtype == "float64":
        notes.append("module_ is float64: in float32 it would be off by more than 1e-5")
    found |= {
        "n_params": point.n_params, "n_nonzero": point.n_nonzero, "source": point.source,
        "slicing_deviation": max(measured.slicing, default=0.0),
        "folding_deviation": measured.folding, "dtype": dtype,
        "cert_bound": point.cert_bound, "cert_median": point.cert_median, "notes": notes,
    }  # fmt: skip
    if measured.occam is not None:
        found["occam_bound"], found["occam_train_error"] = measured.occam
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
    points, classifies = estimator._claimed, hasattr(estimator, "classes_")
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
