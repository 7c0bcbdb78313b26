"""Upper limits for errors on new data: of a quantile, of a rate, and from the size of the network alone."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Shaped
from scipy.stats import beta

from surefoot._numerics.arguments import checked
from surefoot._numerics.checks import check_number, check_numbers
from surefoot.architecture._quantile import upper_bound


@checked
def quantile_upper_bound(
    values: Sequence[float] | Shaped[np.ndarray, " n"], q: float, confidence: float
) -> float:
    """Upper confidence limit of a quantile, whatever the law: an order statistic of independent values.

    It is the k-th smallest value, k = 1 + min{j : P(Bin(n, q) <= j) >= confidence}.

    Parameters
    ----------
    values : (n,) array
        Independent draws, for instance absolute errors on rows that were not used before; infinity is one.
    q : float
        Which quantile, in (0, 1).
    confidence : float
        In (0, 1): with at least this probability the quantile is no larger than the limit.

    Returns
    -------
    float
        The limit in the unit of the values; infinity where k > n, that is where n is too small.

    Raises
    ------
    ValueError
        An argument is out of its range, or a value is NaN.
    """
    found = check_numbers("values", values, ndim=1, finite=False)
    if np.isnan(found).any():
        raise ValueError("values must not be NaN")
    q = check_number("q", q, above=0, below=1)
    confidence = check_number("confidence", confidence, above=0, below=1)
    return upper_bound(found, q, confidence) if len(found) else math.inf


@checked
def clopper_pearson_upper(k: int, n: int, confidence: float) -> float:
    """Upper confidence limit of a probability after k errors in n independent trials (Clopper and Pearson).

    Parameters
    ----------
    k : int
        Errors, 0 to n.
    n : int
        Trials; none at all says nothing, and the limit is 1.
    confidence : float
        In (0, 1): with at least this probability the error rate is no larger than the limit.

    Returns
    -------
    float
        In (0, 1].

    Raises
    ------
    ValueError
        An argument is out of its range.
    """
    k, n = _counts(k, n)
    confidence = check_number("confidence", confidence, above=0, below=1)
    return 1.0 if k == n else float(beta.ppf(confidence, k + 1, n - k))


@checked
def clopper_pearson_lower(k: int, n: int, confidence: float) -> float:
    """Lower confidence limit of a probability after k errors in n independent trials.

    Parameters
    ----------
    k : int
        Errors, 0 to n.
    n : int
        Trials.
    confidence : float
        In (0, 1): with at least this probability the error rate is no smaller than the limit.

    Raises
    ------
    ValueError
        An argument is out of its range.
    """
    k, n = _counts(k, n)
    return 1.0 - clopper_pearson_upper(n - k, n, confidence)


def _counts(k: int, n: int) -> tuple[int, int]:
    n = check_number("n", n, least=0, whole=True)
    k = check_number("k", k, least=0, whole=True)
    if k > n:
        raise ValueError(f"k must be at most n = {n}, got {k}")
    return k, n


@checked
def occam_bound(
    train_error: float,
    n_params: int,
    bits: int,
    n: int,
    positions: int,
    confidence: float,
    structure_bits: float = 0,
) -> float:
    """Upper limit of the error rate from the training error and the length of the network's description.

    train_error + sqrt(((s (b + log2 P) + B) ln 2 + 1 + ln(1/d)) / (2 n)), at most 1. The 1 pays for a number
    s of entries that was chosen from the data: the weights 2^(-s (b + log2 P)) of all networks sum to
    (1 + 1/P)^P <= e.

    Parameters
    ----------
    train_error : float
        Error rate in [0, 1] of the network as it is described, that is after rounding to `bits`.
    n_params : int
        Entries that are not zero, s.
    bits : int
        Bits of each, b.
    n : int
        Every row that `train_error` counts.
    positions : int
        Places in which an entry could have stood, P.
    confidence : float
        1 - d, in (0, 1).
    structure_bits : float
        Bits that say which shape it is, B: log2(L + 1) for the depth, log2|A| for each hidden neuron.

    Returns
    -------
    float
        In [0, 1]; 1 says nothing.

    Raises
    ------
    ValueError
        An argument is out of its range.
    """
    train_error = check_number("train_error", train_error, least=0, most=1)
    positions = check_number("positions", positions, least=1, whole=True)
    s = check_number("n_params", n_params, least=0, whole=True)
    if s > positions:
        raise ValueError(f"n_params must be at most positions = {positions}, got {n_params}")
    bits = check_number("bits", bits, least=1, whole=True)
    n = check_number("n", n, least=1, whole=True)
    confidence = check_number("confidence", confidence, above=0, below=1)
    structure_bits = check_number("structure_bits", structure_bits, least=0)
    nats = (s * (bits + math.log2(positions)) + structure_bits) * math.log(2)
    return min(1.0, train_error + math.sqrt((nats + 1 - math.log1p(-confidence)) / (2 * n)))
