"""Candidates from `search`: found by Adam in float32, fitted again by L-BFGS in float64."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from surefoot.architecture._fit.budget import Budget
from surefoot.architecture._fit.candidates import Candidate
from surefoot.architecture._fit.lbfgs import fit_network
from surefoot.architecture._fit.objective import Rows
from surefoot.architecture._fit.slicing import sliced
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
        Of the space where there is no autoencoder.
    penalties
        One search each.
    restarts
        Of each depth.
    alpha
        Weight decay of the fits.
    seed
        Of starts and mini-batches.
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
        x, y, task = train.x[inputs].T, _targets(train), "classification"
        if train.task == "squared":
            task = "regression"
        elif int(y.max()) + 1 < len(train.y) or len(np.unique(y)) < 2:
            return  # the last class has no row here: a search could not know of it
        space = self._space(len(inputs), len(train.y))
        decoder: Any = space if self.autoencoder is None else self.autoencoder
        deepest = (space if self.autoencoder is None else self.autoencoder.space).max_depth
        depths = list(range(1, deepest + 1))
        generator = torch.Generator().manual_seed(self.seed)
        first, last = budget.used(), budget.share
        for i, penalty in enumerate(self.penalties):
            budget.share = last
            if budget.over():
                return
            part = (last - first) / len(self.penalties)
            budget.share = first + (i + SEARCHING) * part
            spent = _left(budget)
            if spent is None:
                continue
            found = search(
                decoder, x, y, task=task, depth=depths, restarts=self.restarts,
                size_penalty=penalty, generator=generator,
                **spent,
            )  # type: ignore[call-overload]  # fmt: skip
            budget.spend(found[0].iterations)
            budget.share = first + (i + 1) * part
            for nets in found:
                for j in range(min(KEPT, len(nets))):
                    network = network_of(nets.to_sequential(j))
                    network = sliced(replace(network, inputs=inputs[network.inputs]))
                    fitted = fit_network(
                        network, train, validation, self.alpha, FIT, budget, keep_zeros=True
                    )
                    yield Candidate(fitted.network, fitted.val_loss, self.source, self.alpha)

    def _space(self, n_in: int, n_out: int) -> MLPSpace:
        return MLPSpace(
            n_in, n_out, self.max_width, self.max_depth, tuple(self.activations),
            min_width=min(3, self.max_width),
        )  # fmt: skip


def _targets(rows: Rows) -> np.ndarray:
    """As `search` takes them."""
    if rows.task == "squared":
        return rows.y.T
    found = rows.y[0] if rows.task == "logistic" else rows.y.argmax(axis=0)
    return np.asarray(found, dtype=np.int64)


def _left(budget: Budget) -> dict[str, float] | None:
    """What a search may spend of this share, None where nothing is left."""
    left = budget.left() if budget.steps is not None else budget.seconds_left()
    if left <= 0:
        return None
    return {"steps": left} if budget.steps is not None else {"seconds": left}
