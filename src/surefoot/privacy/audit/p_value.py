"""How surely a number of right guesses in one run refutes (eps, delta)-DP, and the eps it refutes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import numpy as np
from scipy.optimize import bisect
from scipy.special import expit
from scipy.stats import binom

from surefoot._numerics.arguments import checked
from surefoot._numerics.checks import check_choice, check_number
from surefoot.privacy._checks import check_epsilon
from surefoot.privacy.audit.tradeoff import Blowup, gaussian_blowup, refuted
from surefoot.privacy.gaussian_mechanism import gaussian

OneRun = Literal["one_run", "one_run_fdp"]


def whole(name: str, given: object, low: int, high: int | None = None) -> int:
    """A whole number in [low, high].

    Parameters
    ----------
    name, given
        The argument, for the message.
    low, high
        The range; None: no end to it.
    """
    return check_number(name, given, least=low, most=high, whole=True)


def check_audit_delta(given: object) -> float:
    """delta in [0, 1): an audit may also test pure DP."""
    return check_number("delta", given, least=0, below=1)


def check_confidence(given: object) -> float:
    """A probability strictly between 0 and 1."""
    return check_number("confidence", given, above=0, below=1)


def _check(m: object, guesses: object, correct: object) -> tuple[int, int, int]:
    total = whole("m", m, 1)
    r = whole("guesses", guesses, 0)
    if r > total:
        raise ValueError(f"guesses must be at most m = {total}, got {r}")
    right = whole("correct", correct, 0)
    if right > r:
        raise ValueError(f"correct must be at most guesses = {r}, got {right}")
    return total, r, right


@checked
def p_value_one_run(m: int, guesses: int, correct: int, eps: float, delta: float) -> float:
    """Probability bound for at least so many right guesses under (eps, delta)-DP.

    m canaries, each in or out by its own fair coin; `guesses` of them were guessed, `correct` rightly:
    arXiv 2305.08846. beta = P[Bin(r, e^eps/(1+e^eps)) >= v], and delta adds 2 m delta
    max_i P[v > Bin >= v - i] / i.

    Parameters
    ----------
    m
        Canaries.
    guesses, correct
        How many of them were guessed, and how many of these rightly.
    eps, delta
        The claim that is tested; delta may be 0.

    Raises
    ------
    ValueError
        If an argument is outside its range.
    """
    m, r, v = _check(m, guesses, correct)
    return _p_value(m, r, v, check_epsilon(eps), check_audit_delta(delta))


def _p_value(m: int, r: int, v: int, eps: float, delta: float) -> float:
    if v == 0:
        return 1.0
    right = float(expit(eps))
    beta = float(binom.sf(v - 1, r, right))
    if delta > 0:
        below = binom.pmf(np.arange(v - 1, -1, -1), r, right)
        alpha = float((np.cumsum(below) / np.arange(1, v + 1)).max())
        beta += 2 * m * delta * alpha
    return min(1.0, beta)


@checked
def epsilon_one_run(
    m: int,
    guesses: int,
    correct: int,
    delta: float,
    confidence: float = 0.95,
    *,
    method: OneRun = "one_run",
) -> float:
    """Lower bound on epsilon from right guesses in one run: the largest that is refuted.

    "one_run" assumes nothing (arXiv 2305.08846). "one_run_fdp" assumes a Gaussian-shaped privacy loss
    (arXiv 2410.22235) and is larger; at delta = 0 such a loss has no epsilon.

    Parameters
    ----------
    m, guesses, correct
        As in `p_value_one_run`.
    delta
        Failure probability of the claim.
    confidence
        Of the lower bound.
    method
        "one_run" or "one_run_fdp".

    Raises
    ------
    ValueError
        If an argument is outside its range.
    """
    m, r, v = _check(m, guesses, correct)
    delta, confidence = check_audit_delta(delta), check_confidence(confidence)
    check_choice("method", method, get_args(OneRun))
    if method == "one_run":
        return _largest(lambda eps: _p_value(m, r, v, eps, delta) < 1 - confidence)
    if delta == 0:
        raise ValueError("delta must be positive for method 'one_run_fdp', got 0")
    mu = mu_one_run(m, r, v, confidence)
    return gaussian(mu).epsilon(delta).value if mu > 0 else 0.0


def mu_one_run(m: int, r: int, v: int, confidence: float) -> float:
    """The largest mu whose Gaussian trade-off curve the guesses refute."""
    return parameter_one_run(m, r, v, confidence, gaussian_blowup)


def parameter_one_run(
    m: int, r: int, v: int, confidence: float, family: Callable[[float], Blowup]
) -> float:
    """The same for a family of curves that leak more as their parameter grows."""
    if v == 0:
        return 0.0
    return _largest(lambda p: refuted(m, r, v, 1 - confidence, family(p)))


def _largest(rejected: Callable[[float], bool]) -> float:
    """Largest x >= 0 that is rejected, by doubling and bisection to 1e-9; 0 where none is."""
    if not rejected(0.0):
        return 0.0
    low, high = 0.0, 1.0
    while rejected(high):
        low, high = high, 2 * high
        if high > 1e6:
            return low
    return float(bisect(lambda x: -1.0 if rejected(x) else 1.0, low, high, xtol=1e-9))
