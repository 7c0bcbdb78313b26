"""The last pruning within a tolerance: 3.4's bound on the validation rows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from surefoot.architecture._estimator.problem import Problem
from surefoot.architecture._fit.candidates import Candidate
from surefoot.architecture._fit.objective import mean_loss
from surefoot.architecture._fit.slicing import sliced
from surefoot.architecture.pruning import largest_within

MOST_ROWS, THRESHOLDS = 2048, 200


def pruned_within(chosen: Candidate, table: Problem, tol: float) -> Candidate:
    """The candidate without the weights whose effect stays within `tol`, and sliced.

    Parameters
    ----------
    chosen
        On standardised rows.
    table
        Raw rows.
    tol
        Of the mean bound on the change of standardised outputs, or logits.
    """
    validation = table.rows(table.validation)
    x = validation.x[:, :: -(-len(validation) // MOST_ROWS)]
    h = chosen.network.layers(np.ascontiguousarray(x[chosen.network.inputs]))
    pruned, _ = largest_within(chosen.network, h, tol, "mean", THRESHOLDS)
    network = sliced(pruned)
    return replace(
        chosen, network=network, val_loss=mean_loss(network, validation), parent=chosen,
        pruned=pruned,
    )  # fmt: skip
