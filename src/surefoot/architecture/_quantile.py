"""The order statistic that bounds a quantile, whatever the distribution."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float
from scipy.stats import binom


def upper_rank(n: int, q: float, confidence: float) -> int | None:
    """k such that the k-th smallest of n iid draws is above the q-quantile with this confidence.

    k = 1 + min{j : P(Bin(n, q) <= j) >= confidence}; None where k > n.

    Parameters
    ----------
    n : int
        Draws.
    q : float
        The quantile.
    confidence : float
        At which the bound holds.
    """
    k = int(binom.ppf(confidence, n, q)) + 1
    return k if k <= n else None


def upper_bound(values: Float[np.ndarray, " n"], q: float, confidence: float) -> float:
    """The bound itself, infinite where there are too few draws.

    Parameters
    ----------
    values : (n,) array
        iid draws.
    q, confidence : float
        As in `upper_rank`.
    """
    k = upper_rank(len(values), q, confidence)
    return math.inf if k is None else float(np.sort(values)[k - 1])
