"""The Gaussian mechanism: the conversion between mu, epsilon and delta, and what reduces to it."""

from __future__ import annotations

import math

from surefoot._numerics.arguments import checked
from surefoot.privacy._checks import check_noise, check_rate, check_steps
from surefoot.privacy._curves.resolved import gaussian_shift
from surefoot.privacy.mechanism import Directed, Mechanism

FULL_BATCH = "full-batch simplification: every step averages the sampling away; no bound either"


def gaussian_pair(mu: float) -> Directed:
    """N(mu, 1) against N(0, 1), also for mu = 0 and infinity."""
    return gaussian_shift(mu)


@checked
def gaussian(mu: float) -> Mechanism:
    """The Gaussian mechanism with sensitivity / noise ratio mu: a guarantee.

    delta(eps) = Phi(mu/2 - eps/mu) - e^eps Phi(-mu/2 - eps/mu), evaluated in logs and without the
    cancellation (arXiv 1805.06530, Theorem 8, for the formula).

    Raises
    ------
    ValueError
        If mu is negative or not finite.
    """
    return Mechanism(gaussian_pair(check_noise(mu, "mu")), "guarantee")


@checked
def full_batch(noise_multiplier: float, sample_rate: float, steps: int) -> Mechanism:
    """N(qT, T sigma^2) against N(0, T sigma^2): the Gaussian mechanism with mu = q sqrt(T) / sigma.

    A heuristic that is usually below `last_iterate`, shown beside it for orientation. In the setting
    of arXiv 2410.06186; that it is one of the paper's baselines is from memory of the paper.

    Parameters
    ----------
    noise_multiplier, sample_rate, steps
        sigma, q and T, as in `last_iterate`.

    Raises
    ------
    ValueError
        If an argument is outside its range.
    """
    sigma, q = check_noise(noise_multiplier), check_rate(sample_rate)
    signal = q * math.sqrt(check_steps(steps))
    mu = 0.0 if signal == 0 else (math.inf if sigma == 0 else signal / sigma)
    return Mechanism(gaussian_pair(mu), "heuristic", FULL_BATCH)
