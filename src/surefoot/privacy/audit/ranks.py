"""Limits of one parameter from the ranks of all scores: nothing is spent on a threshold or on a second rate.

A family of trade-off curves says that the score with the canary lies, after a monotone change of scale that
makes the score without it N(0, 1), stochastically below a law F that grows with the parameter: at every
threshold FNR >= F(threshold). Put the threshold at the (k + 1)-th largest of the n scores without the
canary: its tail probability is Beta(k + 1, n - k) whatever the scores are, so the number of misses is
stochastically at least Binomial(m, F(threshold)), mixed over that law. What remains unknown is the
parameter alone [derived here].
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import numpy as np
from jaxtyping import Float
from scipy.optimize import brentq
from scipy.special import bdtr, betainccinv, betaincinv, ndtr, ndtri

from surefoot.privacy.audit.error_rates import noise_between
from surefoot.privacy.audit.tradeoff import draw_weights
from surefoot.privacy.gaussian_mechanism import gaussian

Array = np.ndarray
# False positive rates at which one looks, fixed beforehand; they share what is missing from the confidence.
RATES = (0.02, 0.1, 0.3, 0.6)
NODES = 161
MOST_MU = 40.0
Misses = Callable[[Float[Array, " n"]], Float[Array, " n"]]


@functools.lru_cache(maxsize=64)
def _thresholds(k: int, outside: int) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
    """Thresholds on the scale of N(0, 1) with weights: the law of the (k + 1)-th largest of `outside`."""
    # The quantiles of the tail probability on a normal scale: the trapezoid rule leaves 1e-12.
    x, width = np.linspace(-9.0, 9.0, NODES, retstep=True)
    a, b = k + 1.0, float(outside - k)
    tail = np.where(x < 0, betaincinv(a, b, ndtr(x)), betainccinv(a, b, ndtr(-x)))
    return -ndtri(tail), width * np.exp(-x * x / 2) / math.sqrt(2 * math.pi)


def few_misses(k: int, outside: int, missed: int, inside: int, misses: Misses) -> float:
    """Probability of at most `missed` misses of `inside` scores, at the rank k, where F is `misses`.

    Parameters
    ----------
    k, outside
        Scores without the canary above the threshold, of how many.
    missed, inside
        Scores with it not above the threshold, of how many.
    misses
        F: from thresholds to probabilities of a miss.
    """
    at, weights = _thresholds(k, outside)
    return float(weights @ bdtr(float(missed), inside, np.clip(misses(at), 0.0, 1.0)))


class Ranks:
    """The ranks at which one looks, and the misses there.

    Attributes
    ----------
    seen
        (k, misses) by rank.
    outside, inside
        Numbers of scores without and with the canary.
    alpha
        What is missing from the confidence, for each rank.
    """

    def __init__(
        self, inside: Float[Array, " a"], outside: Float[Array, " b"], confidence: float
    ) -> None:
        self.outside, self.inside = len(outside), len(inside)
        falling = np.sort(outside)[::-1]
        ranks = sorted({min(int(rate * len(outside)), len(outside) - 1) for rate in RATES})
        # Ties count as misses: no lot can help the bound.
        self.seen = [(k, int((inside <= falling[k]).sum())) for k in ranks]
        self.alpha = (1 - confidence) / len(ranks)

    def _doubt(self, misses: Misses) -> float:
        """The smallest probability, over ranks, of what was seen, over alpha; below 1 it is refuted."""
        return (
            min(few_misses(k, self.outside, missed, self.inside, misses) for k, missed in self.seen)
            / self.alpha
        )

    def mu(self) -> float:
        """The largest mu that is refuted, 0 where none is."""

        def excess(mu: float) -> float:
            return self._doubt(lambda t: ndtr(t - mu)) - 1

        if excess(0.0) >= 0:
            return 0.0
        high = 1.0
        while excess(high) < 0 and high < MOST_MU:
            high *= 2
        return float(brentq(excess, 0.0, high, xtol=1e-9)) if excess(high) >= 0 else high

    def gaussian_epsilon(self, delta: float) -> float:
        """Lower bound if the privacy loss is Gaussian-shaped."""
        mu = self.mu()
        return gaussian(mu).epsilon(delta).value if mu > 0 else 0.0

    def last_iterate_epsilon(self, delta: float, sample_rate: float, steps: int) -> float:
        """Lower bound if it has the shape of the last-iterate family; infinite if no member leaks so much.

        Parameters
        ----------
        delta
            Failure probability of the claim.
        sample_rate, steps
            q and T of the training.
        """
        if sample_rate == 0 or steps == 0:
            return 0.0

        draws, weights = draw_weights(sample_rate, steps)

        def excess(log_sigma: float) -> float:
            shifts = draws / (math.exp(log_sigma) * math.sqrt(steps))
            return 1 - self._doubt(lambda t: ndtr(t[:, None] - shifts) @ weights)

        return noise_between(excess, delta, sample_rate, steps)
