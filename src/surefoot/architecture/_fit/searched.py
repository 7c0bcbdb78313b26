"""Candidates from `search`: found by Adam in float32, fitted again by L-BFGS in float64."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from surefoot.architecture._fit.budget import Budget
from surefoot.architecture._fit.candidates import Candidate
from surefoot.architecture._fit.lbfgs import fit_network
from surefoot.architecture._fit.network import Network
from surefoot.architecture._fit.objective import Rows, mean_loss
from surefoot.architecture._fit.slicing import sliced
from surefoot.architecture._search.tasks import Task as SearchTask
from surefoot.architecture.compaction import network_of
from surefoot.architecture.searching import search
from surefoot.architecture.space import MLPSpace

KEPT = 2
"""Networks of each depth and penalty that are fitted again."""
SEARCHING = 0.7
"""Share of a penalty's budget that is searched with; the rest fits again."""
FIT = 100


@dataclass(frozen=True)
class Searched:
    """A search as a source of candidates.

    Attributes
    ----------
    source
        "direct" or "autoencoder".
    autoencoder
        The trained one, or None for the direct search.
    max_width, max_depth, activations
        Of the space where there is no autoencoder; the depth of its networks too where there is one.
    penalties
        One search each.
    restarts
        Of each depth.
    alpha
        Weight decay of the fits.
    seed
        Of starts and mini-batches.
    fit
        L-BFGS iterations of what is found; none leaves it as it is.
    """

    source: str
    autoencoder: Any
    max_width: int
    max_depth: int
    activations: Sequence[str]
    penalties: Sequence[float]
    restarts: int
    alpha: float
    seed: int
    fit: int = FIT

    def __call__(
        self, train: Rows, validation: Rows, inputs: np.ndarray, budget: Budget
    ) -> Iterator[Candidate]:
        """The best of each penalty and depth, sliced and fitted again.

        Parameters
        ----------
        train, validation
            Standardised rows; their weights count in the fits and not in the search.
        inputs
            Columns that vary.
        budget
            Its share is spent in equal parts, one a penalty.
        """
        x, y, task, order = as_searched(train, inputs)
        if task == "classification" and len(np.unique(y)) < 2:
            return  # a constant is right everywhere
        space = self._space(len(inputs), len(train.y))
        decoder: Any = space if self.autoencoder is None else self.autoencoder
        own = space if self.autoencoder is None else self.autoencoder.space
        depths = list(range(1, min(self.max_depth, own.max_depth) + 1))
        generator = torch.Generator().manual_seed(self.seed)
        first, last = budget.used(), budget.share
        for i, penalty in enumerate(self.penalties):
            budget.share = last
            if budget.over():
                return
            part = (last - first) / len(self.penalties)
            budget.share = first + (i + (SEARCHING if self.fit else 1)) * part
            spent = _left(budget)
            if spent is None:
                continue
            found = search(
                decoder, x, y, task=task, depth=depths, restarts=self.restarts,
                size_penalty=penalty, generator=generator,
                **spent,
            )  # fmt: skip
            budget.spend(found[0].iterations)
            budget.share = first + (i + 1) * part
            for nets in found:
                for j in range(min(KEPT, len(nets))):
                    network = as_read(nets.to_sequential(j), inputs, order)
                    value = mean_loss(network, validation)
                    if self.fit:
                        fitted = fit_network(
                            network,
                            train,
                            validation,
                            self.alpha,
                            self.fit,
                            budget,
                            keep_zeros=True,
                        )
                        network, value = fitted.network, fitted.val_loss
                    yield Candidate(network, value, self.source, self.alpha)

    def _space(self, n_in: int, n_out: int) -> MLPSpace:
        return MLPSpace(
            n_in, n_out, self.max_width, self.max_depth, tuple(self.activations),
            min_width=min(3, self.max_width),
        )  # fmt: skip


def as_searched(
    rows: Rows, inputs: np.ndarray
) -> tuple[np.ndarray, np.ndarray, SearchTask, np.ndarray]:
    """Columns, targets and task as `search` takes them, and in which order it then has the outputs.

    Parameters
    ----------
    rows
        Standardised.
    inputs
        Columns that are read.
    """
    x, order = rows.x[inputs].T, np.arange(len(rows.y))
    if rows.task == "squared":
        return x, rows.y.T, "regression", order
    y = np.asarray(rows.y[0] if rows.task == "logistic" else rows.y.argmax(axis=0), dtype=np.int64)
    if rows.task == "softmax":
        # A search counts classes by the last one that has a row: such a one goes to the end.
        order = np.roll(order, -1 - int(y.max()))
        y = order.argsort()[y]
    return x, y, "classification", order


def as_read(module: nn.Module, inputs: np.ndarray, order: np.ndarray) -> Network:
    """What `search` found as a network on all columns, its outputs in their own order, sliced.

    Parameters
    ----------
    module
        A plain network.
    inputs, order
        As in `as_searched`.
    """
    network, back = network_of(module), order.argsort()
    w, b = network.weights[-1][back], network.biases[-1][back]
    network = network.with_parts([*network.weights[:-1], w], [*network.biases[:-1], b])
    return sliced(replace(network, inputs=inputs[network.inputs]))


def _left(budget: Budget) -> dict[str, Any] | None:
    """What a search may spend of this share, None where nothing is left."""
    left = budget.left() if budget.steps is not None else budget.seconds_left()
    if left <= 0:
        return None
    if budget.steps is not None:
        return {"steps": left}
    return {"seconds": left, "clock": budget.clock}
