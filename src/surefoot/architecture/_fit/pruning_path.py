"""Iterative pruning: the entries that matter least go, what is left is fitted again, and so on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from surefoot.architecture._fit.budget import Budget
from surefoot.architecture._fit.lbfgs import fit_network
from surefoot.architecture._fit.network import Array, Network, times_slope
from surefoot.architecture._fit.objective import Rows
from surefoot.architecture._fit.slicing import sliced

Criterion = Literal["magnitude", "curvature"]
SMALL = 50
"""Below so many entries smaller steps are taken: 15% at once can jump past the size that is wanted."""


@dataclass(frozen=True)
class PruningStep:
    """One step of a path.

    Attributes
    ----------
    before
        The network that was pruned.
    pruned
        The same with zeros, not yet sliced.
    network
        Sliced, and fitted again.
    val_loss
        Of `network`.
    """

    before: Network
    pruned: Network
    network: Network
    val_loss: float


def pruning_path(
    start: Network,
    train: Rows,
    validation: Rows,
    alpha: float,
    budget: Budget,
    *,
    criterion: Criterion = "magnitude",
    fraction: float = 0.15,
    iterations: int = 40,
    give_up: float = np.inf,
) -> Iterator[PruningStep]:
    """Every step from `start` down to nothing.

    Parameters
    ----------
    start
        A fitted network.
    train, validation, alpha, budget
        As in `fit_network`.
    criterion
        "magnitude": |w|; "curvature": w^2 times the diagonal of the Gauss-Newton matrix, by half of which the
        loss of a minimum rises (Optimal Brain Damage).
    fraction
        Of the entries that go at once; a third of it below 50 entries, and at least one.
    iterations
        L-BFGS iterations after each step.
    give_up
        The validation loss beyond which a path is not worth its time.
    """
    network = start
    while not budget.over():
        scores = _scores(network, train, criterion, alpha)
        left = int(sum(np.isfinite(s).sum() for s in scores))
        if not left:
            return
        share = fraction if left > SMALL else fraction / 3
        pruned = without_least(network, scores, max(1, round(share * left)))
        fitted = fit_network(
            sliced(pruned), train, validation, alpha, iterations, budget, keep_zeros=True
        )
        yield PruningStep(network, pruned, fitted.network, fitted.val_loss)
        network = fitted.network
        if fitted.val_loss > give_up:
            return


def without_least(network: Network, scores: list[Array], count: int) -> Network:
    """Zeros in place of the `count` entries of least score; infinite scores stay."""
    flat = np.concatenate([s.ravel() for s in scores])
    gone = np.zeros(len(flat), bool)
    gone[np.argsort(flat, kind="stable")[:count]] = True
    ends = np.cumsum([s.size for s in scores])[:-1]
    parts = [p for pair in zip(network.weights, network.biases, strict=True) for p in pair]
    new = [
        np.where(g.reshape(p.shape), 0.0, p)
        for p, g in zip(parts, np.split(gone, ends), strict=True)
    ]
    return network.with_parts(new[::2], new[1::2])


def _scores(network: Network, rows: Rows, criterion: Criterion, alpha: float) -> list[Array]:
    """What the entries matter, weights and biases in turn: infinite where there is nothing to gain.

    The bias of the first layer, and that of the last in a regression, take up the means of the columns when
    the standardisation is folded in: a zero there would not stay one.
    """
    factor = (
        [np.ones_like(p) for p in network.pattern()]
        if criterion == "magnitude"
        # Weight decay bends as well: what is left where all rows are classified with certainty.
        else [c + 2 * alpha for c in _curvature(network, rows)]
    )
    parts = [p for pair in zip(network.weights, network.biases, strict=True) for p in pair]
    scores = [
        np.where(p != 0, np.abs(p) * np.sqrt(f), np.inf) for p, f in zip(parts, factor, strict=True)
    ]
    scores[1][:] = np.inf
    if rows.task == "squared":
        scores[-1][:] = np.inf
    return scores


def _curvature(network: Network, rows: Rows) -> list[Array]:
    """The diagonal of the Gauss-Newton matrix of the mean loss, outputs taken one by one."""
    h = network.layers(np.ascontiguousarray(rows.x[network.inputs]))
    f = h[-1]
    if rows.task == "squared":
        bend = np.full_like(f, 2 / len(f))
    elif rows.task == "logistic":
        p = 0.5 * (1 + np.tanh(0.5 * f))
        bend = p * (1 - p)
    else:
        p = np.exp(f - f.max(axis=0))
        p /= p.sum(axis=0)
        bend = p * (1 - p)
    found = [
        np.zeros_like(p) for pair in zip(network.weights, network.biases, strict=True) for p in pair
    ]
    for k in range(len(f)):
        d = np.zeros_like(f)
        d[k] = np.sqrt(bend[k] * rows.weight)
        for i in range(network.depth, -1, -1):
            found[2 * i] += (d * d) @ (h[i] * h[i]).T
            found[2 * i + 1] += (d * d).sum(axis=1)
            if i:
                d = network.weights[i].T @ d
                times_slope(d, h[i], network.activations[i - 1])
    return found
