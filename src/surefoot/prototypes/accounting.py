"""Privacy of Gaussian releases: the exact curve, solved for the noise, composed, amplified by sampling."""

from __future__ import annotations

import functools
import math
from typing import Any

from scipy.optimize import brentq

from surefoot._numerics.arguments import checked
from surefoot._numerics.checks import check_number
from surefoot._numerics.hockey_stick.gaussian import GaussianPair
from surefoot._numerics.hockey_stick.mixture import REMOVE

LEAST_NOISE, LARGEST_EPSILON, SMALLEST_DELTA = 1e-9, 1e15, 1e-300


def check_delta(delta: Any) -> float:
    """A number in (0, 1), at least 1e-300."""
    delta = check_number("delta", delta, above=0, below=1)
    return check_number("delta", delta, least=SMALLEST_DELTA)


@checked
def gaussian_epsilon(nu: float, delta: float, releases: int = 1) -> float:
    """Smallest epsilon at delta of the Gaussian mechanism with noise nu times the sensitivity.

    delta(eps) = Phi(1/(2 nu) - eps nu) - e^eps Phi(-1/(2 nu) - eps nu) (arXiv 1805.06530, Theorem 8),
    inverted and rounded up; k releases have the noise of one with nu / sqrt(k).

    Parameters
    ----------
    nu
        Noise multiplier, at least 0; 0 gives infinity.
    delta
        In (0, 1).
    releases
        How many of this noise, of the same records.

    Raises
    ------
    ValueError
        An argument outside its range.
    """
    nu = check_number("nu", nu, least=0, finite=False)
    delta = check_delta(delta)
    releases = check_number("releases", releases, least=1, whole=True)
    return epsilon_of(releases / nu**2 if nu**2 > 0 else math.inf, delta)


@functools.lru_cache(maxsize=1024)  # a ledger asks the same again
def epsilon_of(mu_squared: float, delta: float) -> float:
    """The epsilon of all releases together whose squared shifts, in units of the noise, have this sum."""
    if mu_squared == 0:
        return 0.0
    if mu_squared > LEAST_NOISE**-2:
        return math.inf
    pair = GaussianPair(math.sqrt(mu_squared))
    return pair.epsilon(delta, REMOVE).upper  # by symmetry that of the other direction too


@checked
@functools.lru_cache(maxsize=1024)
def noise_multiplier(epsilon: float, delta: float) -> float:
    """Smallest nu with `gaussian_epsilon(nu, delta)` at most epsilon, to a relative 1e-12, never below it.

    Parameters
    ----------
    epsilon
        Positive and at most 1e15.
    delta
        In (0, 1).

    Raises
    ------
    ValueError
        An argument outside its range.
    """
    epsilon = check_number("epsilon", epsilon, above=0, most=LARGEST_EPSILON)
    delta = check_delta(delta)

    def excess(log_nu: float) -> float:
        return min(epsilon_of(math.exp(-2 * log_nu), delta), 1e300) - epsilon

    low = high = 0.0
    while excess(high) > 0:
        low, high = high, high + 1
    while excess(low) <= 0:
        if low <= math.log(LEAST_NOISE):
            return LEAST_NOISE
        low, high = low - 1, low
    found = float(brentq(excess, low, high, xtol=1e-14, rtol=1e-14))
    step = 1e-14
    while excess(found) > 0:  # brentq's root may lie on the side of too little noise
        found, step = found + step, 2 * step
    return math.exp(found)


@checked
def amplify(epsilon: float, delta: float, m: int, n: int) -> tuple[float, float]:
    """(eps', delta') of a mechanism that sees m of n records, drawn without replacement and in secret.

    eps' = ln(1 + (m/n)(e^eps - 1)), delta' = (m/n) delta (arXiv 1807.01647, Theorem 9). It needs the sample
    to be secret and its order to carry nothing: draw and shuffle with the system's entropy.

    Parameters
    ----------
    epsilon, delta
        Of the mechanism on the sample.
    m, n
        Records drawn, and records there; 1 <= m <= n.

    Raises
    ------
    ValueError
        An argument outside its range.
    """
    epsilon = check_number("epsilon", epsilon, least=0, finite=False)
    delta = check_delta(delta)
    n = check_number("n", n, least=1, whole=True)
    drawn = check_number("m", m, least=1, whole=True)
    if drawn > n:
        raise ValueError(f"m must be at most n = {n}, got {m!r}")
    rate = drawn / n
    if epsilon > 30:  # e^eps leaves nothing of the 1 beside it, and overflows at 709
        return epsilon + math.log(rate + (1 - rate) * math.exp(-epsilon)), rate * delta
    return math.log1p(rate * math.expm1(epsilon)), rate * delta
