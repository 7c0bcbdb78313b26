"""Differences of two arms on the same splits, with an interval that knows that splits overlap."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.stats import t


class Paired(NamedTuple):
    """A mean difference and two half-widths of its 95 % interval; NaN of one split."""

    mean: float
    plain: float
    """As if the splits were independent."""
    corrected: float
    """Of Nadeau and Bengio (2003)."""


def paired(differences: Float[np.ndarray, " splits"], test_share: float) -> Paired:
    """Mean, half-width of its 95 % t-interval, and the half-width of Nadeau and Bengio (2003).

    Re-splits of one data set overlap: the corrected variance is larger by 1 / J + n_test / n_train.

    Parameters
    ----------
    differences : (splits,) array
        Of two arms on each of the splits.
    test_share : float
        n_test / n_train; 0 where every split is of fresh data.
    """
    J = len(differences)
    if J < 2:
        return Paired(float(differences.mean()), float("nan"), float("nan"))
    q, sd = float(t.ppf(0.975, J - 1)), float(differences.std(ddof=1))
    wide = q * sd * (1 / J + test_share) ** 0.5
    return Paired(float(differences.mean()), q * sd / J**0.5, wide)
