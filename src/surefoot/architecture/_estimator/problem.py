"""A table as the race sees it: split, standardised in float64, one column a row of data."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64
from sklearn.model_selection import train_test_split

from surefoot.architecture._fit.objective import Rows, Task
from surefoot.architecture.folding import Standardisation, standardisation

LEAST_ROWS = 20
"""With fewer there is no internal validation."""


@dataclass(frozen=True, eq=False)
class Problem:
    """Rows for training, validation and certification.

    Attributes
    ----------
    x, y, weight
        (n, features), (n, outputs) and (n,): every row, raw; targets as the task wants them.
    task
        Of which loss.
    training, validation, certification
        Row numbers; `validation` are those of training where there are too few rows.
    by
        The standardisation of the training rows.
    notes
        What a user should know.
    """

    x: Float64[np.ndarray, "n features"]
    y: Float64[np.ndarray, "n outputs"]
    weight: Float64[np.ndarray, " n"]
    task: Task
    training: np.ndarray
    validation: np.ndarray
    certification: np.ndarray
    by: Standardisation
    notes: tuple[str, ...]

    def rows(self, index: np.ndarray) -> Rows:
        """Standardised rows."""
        y = self.y[index]
        if self.task == "squared":
            y = self.by.outputs(y)
        w = self.weight[index]
        return Rows(
            np.ascontiguousarray(self.by.inputs(self.x[index]).T),
            np.ascontiguousarray(y.T),
            w / w.sum(),
            self.task,
        )


def problem(
    x: Float64[np.ndarray, "n features"],
    y: Float64[np.ndarray, "n outputs"],
    labels: np.ndarray | None,
    weight: Float64[np.ndarray, " n"],
    task: Task,
    *,
    validation_fraction: float,
    certify_fraction: float,
    seed: int,
) -> Problem:
    """Split and standardise.

    Parameters
    ----------
    x, y
        Raw rows; targets of a regression, or 0 and 1, or one-hot.
    labels
        Class numbers, for strata; None of a regression.
    weight
        Of every row, positive.
    task
        Of which loss.
    validation_fraction, certify_fraction
        Shares; certification first, the other of what is left.
    seed
        Of both splits.

    Raises
    ------
    ValueError
        No row is left to the fit, or a column cannot be standardised.
    """
    rng = np.random.default_rng(seed)
    notes = []
    order = rng.permutation(len(x))
    # Drawn plainly: its limits are of independent rows, which strata are not.
    # At least one where one is asked for; 0.29 of 100 are 29, and 28.999... in floats.
    n_certify = max(1, int(certify_fraction * len(x) + 1e-9)) if certify_fraction else 0
    if n_certify >= len(x):
        raise ValueError(
            f"certify_fraction = {certify_fraction:g} leaves none of {len(x)} rows to the fit"
        )
    certification, left = np.sort(order[:n_certify]), np.sort(order[n_certify:])
    if len(left) < LEAST_ROWS:
        notes.append(
            f"{len(left)} rows are too few for internal validation (fewer than {LEAST_ROWS}): "
            "models were chosen by their training loss"
        )
        training = validation = left
    else:
        training, validation = _split(left, labels, validation_fraction, seed)
    w = weight[training] / weight[training].sum()
    targets = y[training] if task == "squared" else None
    by = standardisation(x[training], targets, y.shape[1], w)
    return Problem(
        x, y, weight, task, training, validation, certification, by, tuple(notes)
    )  # fmt: skip


def _split(
    left: np.ndarray, labels: np.ndarray | None, fraction: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    size = min(max(1, round(fraction * len(left))), len(left) - 1)
    strata = None
    if labels is not None:
        there, counts = np.unique(labels[left], return_counts=True)
        if counts.min() > 1 and len(there) <= min(size, len(left) - size):
            strata = labels[left]
    training, validation = train_test_split(
        left, test_size=size, random_state=seed % 2**32, stratify=strata
    )
    return np.sort(training), np.sort(validation)
