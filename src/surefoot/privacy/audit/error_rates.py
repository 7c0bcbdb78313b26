"""Many runs with and without one canary: error rates with exact limits, and the epsilon they refute."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from scipy.optimize import brentq
from scipy.special import ndtri
from scipy.stats import beta

from surefoot._numerics.arguments import checked
from surefoot.privacy.audit.p_value import check_audit_delta, check_confidence, whole
from surefoot.privacy.gaussian_mechanism import gaussian
from surefoot.privacy.heuristic import last_iterate

# Logarithms of noise multipliers: beyond these every member of the family is as good as the last.
LEAST_NOISE, MOST_NOISE = -12.0, 30.0


@checked(nan=True)
@dataclass(frozen=True)
class Limits:
    """Upper limits of both error rates, and what follows from them.

    Attributes
    ----------
    fpr
        Clopper-Pearson upper limit of the false positive rate, at half of 1 - confidence.
    fnr
        The same of the false negative rate, at the other half.
    epsilon
        Distribution-free lower bound on epsilon.
    mu
        Of the Gaussian mechanism with these error rates; -inf where a limit is 1.
    """

    fpr: float
    fnr: float
    epsilon: float
    mu: float

    def gaussian_epsilon(self, delta: float) -> float:
        """Lower bound if the privacy loss is Gaussian-shaped (arXiv 2302.07956)."""
        return gaussian(self.mu).epsilon(delta).value if self.mu > 0 else 0.0

    def last_iterate_epsilon(self, delta: float, sample_rate: float, steps: int) -> float:
        """Lower bound if it has the shape of the last-iterate family with this q and T [derived here].

        The noise multiplier at which the best test with this false positive rate has this false
        negative rate; its heuristic epsilon. Larger than the Gaussian one for small q; infinite if
        no noise is small enough, for a canary that is sampled too seldom cannot be told so well.

        Parameters
        ----------
        delta
            Failure probability of the claim.
        sample_rate, steps
            q and T of the training.
        """
        if not self.mu > 0 or sample_rate == 0 or steps == 0:
            return 0.0

        def excess(log_sigma: float) -> float:
            mechanism = last_iterate(math.exp(log_sigma), sample_rate, steps)
            return float(mechanism.tradeoff(self.fpr).value) - self.fnr

        return noise_between(excess, delta, sample_rate, steps)


def noise_between(
    excess: Callable[[float], float], delta: float, sample_rate: float, steps: int
) -> float:
    """The heuristic epsilon of the last-iterate family at the noise where `excess`, increasing, is 0.

    Infinite where it is positive at any noise, 0 where it is negative at any.

    Parameters
    ----------
    excess
        Of the logarithm of the noise multiplier.
    delta, sample_rate, steps
        As in `Limits.last_iterate_epsilon`.
    """
    low, high = -1.0, 1.0
    while excess(low) > 0:
        low -= 1.0
        if low < LEAST_NOISE:
            return math.inf
    while excess(high) < 0:
        high += 1.0
        if high > MOST_NOISE:
            return 0.0
    sigma = math.exp(brentq(excess, low, high, xtol=1e-10))
    return last_iterate(sigma, sample_rate, steps).epsilon(delta).value


@checked
def clopper_pearson(tp: int, fp: int, runs: int, delta: float, confidence: float = 0.95) -> Limits:
    """Lower bounds from `tp` accusations in `runs` runs with the canary and `fp` in as many without.

    Parameters
    ----------
    tp, fp
        Accusations among the runs with the canary, and among those without.
    runs
        Trainings on each side.
    delta
        Failure probability of the claim, at least 0.
    confidence
        Of both limits together: each has half of what is missing from 1.

    Raises
    ------
    ValueError
        If a count is outside [0, runs], or another argument outside its range.
    """
    runs = whole("runs", runs, 1)
    for name, count in (("tp", tp), ("fp", fp)):
        if whole(name, count, 0) > runs:
            raise ValueError(f"{name} must be at most runs = {runs}, got {count}")
    tp, fp = whole("tp", tp, 0), whole("fp", fp, 0)
    return error_limits(fp, runs, runs - tp, runs, delta, confidence)


def error_limits(
    fp: int, outside: int, fn: int, inside: int, delta: float, confidence: float
) -> Limits:
    """The same from errors among trainings without (`outside`) and with (`inside`) the canary.

    Parameters
    ----------
    fp, outside
        Accusations among so many trainings without the canary.
    fn, inside
        Misses among so many trainings with it.
    delta, confidence
        As in `clopper_pearson`.
    """
    delta, half = check_audit_delta(delta), (1 - check_confidence(confidence)) / 2
    fpr, fnr = (
        1.0 if wrong == n else float(beta.ppf(1 - half, wrong + 1, n - wrong))
        for wrong, n in ((fp, outside), (fn, inside))
    )
    epsilon = 0.0
    for seen, error in ((1 - fnr - delta, fpr), (1 - fpr - delta, fnr)):
        if seen > 0:
            epsilon = max(epsilon, math.log(seen / error))
    mu = -math.inf if max(fpr, fnr) >= 1 else float(ndtri(1 - fpr) - ndtri(fnr))
    return Limits(fpr, fnr, epsilon, mu)
