"""What a fit writes into its record, and what is measured for its certificates."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch

from surefoot.architecture import guarantee as of
from surefoot.architecture._estimator.points import absolute_error, wrong
from surefoot.architecture._estimator.problem import Problem
from surefoot.architecture._estimator.settings import Checked
from surefoot.architecture._fit.budget import Budget
from surefoot.architecture._fit.candidates import Candidate
from surefoot.architecture._fit.network import Network
from surefoot.architecture._fit.objective import Rows
from surefoot.architecture._fit.slicing import sliced
from surefoot.architecture.compaction import module_of, network_of
from surefoot.architecture.folding import run_module
from surefoot.architecture.intervals import (
    clopper_pearson_lower,
    occam_bound,
    quantile_upper_bound,
)
from surefoot.architecture.pareto import ParetoPoint
from surefoot.architecture.pruning import network_bound, note_pruning
from surefoot.record import Record

BITS = 16
MOST_ROWS = 2048
"""Validation rows, evenly taken, on which the bounds of all pruning steps are compared."""


@dataclass(frozen=True, eq=False)
class Measured:
    """What the certificates of one point compare.

    Attributes
    ----------
    slicing
        3.3: the deviation of every slicing that led to it.
    folding
        3.3: of its module on raw rows.
    pruning
        3.4: change and bound of every pruning step that led to it.
    occam
        3.6: the bound, and the error rate that it starts from; None of a regression.
    """

    slicing: tuple[float, ...]
    folding: float
    pruning: tuple[dict[str, float], ...]
    occam: tuple[float, float] | None


class Measuring:
    """Measures points; steps that several of them have gone through are measured once.

    Parameters
    ----------
    table
        Raw rows.
    rows
        Training rows on which slicing is compared.
    how
        Parameters of the fit.
    """

    def __init__(self, table: Problem, rows: np.ndarray, how: Checked) -> None:
        self.table, self.how = table, how
        self.x = table.by.inputs(table.x[rows])
        few = table.validation[:: -(-len(table.validation) // MOST_ROWS)]
        self.validation = table.rows(few)
        self.known: dict[int, tuple[float, dict[str, float]]] = {}

    def __call__(self, candidate: Candidate, point: ParetoPoint, folding: float) -> Measured:
        """Of one point.

        Parameters
        ----------
        candidate
            The network and what it was pruned from.
        point
            What became of it.
        folding
            The deviation of its module.
        """
        steps = [
            self._step(each.parent.network, each.pruned)
            for each in candidate.lineage()
            if each.pruned is not None and each.parent is not None
        ]
        found = None
        if self.table.task != "squared":
            how = self.how
            found = occam(
                point,
                self.table,
                how.max_width,
                how.max_depth,
                len(how.activations),
                how.confidence,
            )
        return Measured(tuple(s for s, _ in steps), folding, tuple(p for _, p in steps), found)

    def _step(self, before: Network, after: Network) -> tuple[float, dict[str, float]]:
        if id(after) not in self.known:
            self.known[id(after)] = (
                slicing_deviation(after, sliced(after), self.x),
                pruning_step(before, after, self.validation),
            )
        return self.known[id(after)]


def record_of(
    measured: Measured,
    points: Sequence[ParetoPoint],
    seconds: float,
    budget: Budget,
    decoder: str | None,
) -> Record:
    """The record of a fit of which one point was chosen.

    Parameters
    ----------
    measured
        Of this point.
    points
        All that are certified together.
    seconds
        That the fit took.
    budget
        What it was given.
    decoder
        The digest of the autoencoder that was searched in, if one was.
    """
    record = Record()
    if decoder is not None:
        record.note(0, "search", autoencoder=decoder)
    record.extend(0, of.SLICING, measured.slicing or (0.0,))  # nothing was sliced
    record.append(0, 0, **{of.FOLDING: measured.folding})
    record.note(0, "slicing", rows="standardised training rows", dtype="float32")
    record.note(
        0, "folding", rows="raw training rows", standardised_in="float64",
        dtype_chosen_by="this check",
    )  # fmt: skip
    note_pruning(record)
    for step, compared in enumerate(measured.pruning):
        record.append(0, step, **compared)
    record_limits(record, points)
    if measured.occam is not None:
        record_occam(record, measured.occam[0])
    record.note(0, "budget", measure=budget.measure)
    limit = math.inf if budget.seconds is None else budget.seconds
    record.append(0, 0, **{of.SECONDS: seconds, of.TIME_BUDGET: limit})
    return record


def slicing_deviation(gated: Network, compact: Network, x: np.ndarray) -> float:
    """max |compact - gated| / max(1, |gated|) of both as float32 modules on standardised rows.

    Parameters
    ----------
    gated, compact
        Before and after slicing.
    x
        (n, features) standardised rows.
    """
    features = x.shape[1]
    a = run_module(module_of(gated, features, torch.float32), x)
    b = run_module(module_of(compact, features, torch.float32), x)
    return float((np.abs(a - b) / np.maximum(1, np.abs(a))).max(initial=0.0))


def pruning_step(before: Network, after: Network, rows: Rows) -> dict[str, float]:
    """3.4: mean bound and mean change of one step.

    Parameters
    ----------
    before, after
        Of one shape.
    rows
        Standardised rows.
    """
    h = before.layers(np.ascontiguousarray(rows.x[before.inputs]))
    f = after.layers(h[0])[-1]
    sizes = np.linalg.norm(h[-1], axis=0)
    return {
        of.CHANGE: float(np.linalg.norm(f - h[-1], axis=0).mean()),
        of.PRUNING_BOUND: float(network_bound(before, after, h).mean()),
        of.OUTPUTS: float(sizes.mean()),
        of.TRIVIAL_CHANGE: float((sizes + np.linalg.norm(f, axis=0)).mean()),
    }


def record_limits(record: Record, points: Sequence[ParetoPoint]) -> None:
    """3.5: the certified limits of the front, a step a point.

    Parameters
    ----------
    record
        Written to.
    points
        The front, and what was pruned further.
    """
    record.note(
        0, "certification", rows="untouched by search, polish and selection",
        correction="Bonferroni over the front",
    )  # fmt: skip
    for i, p in enumerate(points):
        if p.cert_bound is None:
            continue
        kind = "error rate" if p.cert_median is None else "90% absolute error"
        record.append(0, i, **{of.certified(kind): p.cert_bound})
        if p.cert_median is not None:
            record.append(0, i, **{of.certified("median absolute error"): p.cert_median})


def record_fresh(
    record: Record,
    points: Sequence[ParetoPoint],
    x: np.ndarray,
    y: np.ndarray,
    confidence: float,
) -> None:
    """What fresh rows say against the certified limits: lower limits, all points together.

    Parameters
    ----------
    record
        Written to.
    points
        The front, and what was pruned further.
    x, y
        Rows that the fit has not seen; targets as the task wants them.
    confidence
        Of all lower limits of one kind together.
    """
    record.note(0, "certification", compared_on="rows given for comparison")
    level = 1 - (1 - confidence) / len(points)
    for i, p in enumerate(points):
        f = run_module(p.module, x)
        if p.cert_median is None:
            k = int(wrong(f, y).sum())
            found = {"error rate": clopper_pearson_lower(k, len(y), level)}
        else:
            e = absolute_error(f, y)
            found = {
                "90% absolute error": max(0.0, -quantile_upper_bound(-e, 0.1, level)),
                "median absolute error": max(0.0, -quantile_upper_bound(-e, 0.5, level)),
            }
        record.append(0, i, **{of.fresh(kind): v for kind, v in found.items()})


def rounded(point: ParetoPoint) -> Network:
    """The network of a point with every entry rounded to 16 bits, after folding."""
    network = network_of(point.module)
    with np.errstate(over="ignore"):
        parts = [
            [p.astype(np.float16).astype(np.float64) for p in ps]
            for ps in (network.weights, network.biases)
        ]
    return network.with_parts(*parts)


def occam(
    point: ParetoPoint,
    table: Problem,
    max_width: int,
    max_depth: int,
    names: int,
    confidence: float,
) -> tuple[float, float]:
    """3.6 of a classifier's point: the bound, and the error rate that it starts from.

    Parameters
    ----------
    point
        The network.
    table
        Raw rows; every row of training and validation counts.
    max_width, max_depth, names
        What could have been: widths, depth, activations.
    confidence
        Of the bound.
    """
    network = rounded(point)
    rows = np.union1d(table.training, table.validation)
    with np.errstate(over="ignore", invalid="ignore"):
        f = network.layers(np.ascontiguousarray(table.x[rows].T[network.inputs]))[-1].T
    error = float(np.mean(wrong(f, table.y[rows]) | ~np.isfinite(f).all(axis=1)))
    inputs, outputs = table.x.shape[1], table.y.shape[1]
    shapes = ([inputs, outputs], [inputs, *[max_width] * max_depth, outputs])
    # Without a hidden layer there are more entries than through a narrow one.
    positions = max(sum((a + 1) * b for a, b in pairwise(sizes)) for sizes in shapes)
    entries = sum(int(np.count_nonzero(p)) for p in (*network.weights, *network.biases))
    structure = math.log2(max_depth + 1) + math.log2(names) * sum(network.widths)
    bound = occam_bound(error, entries, BITS, len(rows), positions, confidence, structure)
    return bound, error


def record_occam(record: Record, bound: float) -> None:
    """The bound of the chosen point.

    Parameters
    ----------
    record
        Written to.
    bound
        Of the rounded network.
    """
    record.note(
        0, "occam", loss="error rate", rounded="after folding", counted="every row of the fit"
    )
    record.append(0, 0, **{of.OCCAM_BOUND: bound})


def elapsed(budget: Budget) -> float:
    """3.7: seconds of its clock since the fit began."""
    return budget.clock() - budget.started
