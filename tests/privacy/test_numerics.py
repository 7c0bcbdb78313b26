"""Own numerics against 50-digit arithmetic, and against scipy's, which they replace where it is worse."""

import math

import numpy as np
import pytest
from mpmath import mp, mpf
from scipy.special import gammaln, kl_div, log_ndtr, logsumexp
from scipy.stats import binom, binomtest

from surefoot._numerics.hockey_stick import mills
from surefoot._numerics.hockey_stick.mixture import log_sum
from surefoot.privacy._curves.binomial import deviance, log_pmf, stirling_error
from surefoot.privacy.audit.error_rates import error_limits


@pytest.fixture(autouse=True)
def fifty_digits():
    with mp.workdps(50):
        yield


def farthest(found, reference):
    """Largest |found - reference|; every value of `found` is exact as it stands."""
    pairs = zip(np.atleast_1d(found), reference, strict=True)
    return max(abs(float(mpf(float(a)) - b)) for a, b in pairs)


def exact_log_pmf(k, trials, q):
    k, q = mpf(int(k)), mpf(q)
    whole = mp.loggamma(trials + 1) - mp.loggamma(k + 1) - mp.loggamma(trials - k + 1)
    return whole + k * mp.log(q) + (trials - k) * mp.log1p(-q)


@pytest.mark.parametrize(("trials", "q"), [(10**6, 0.01), (10**6, 0.5), (10**9, 1e-4)])
def test_binomial_weights(trials, q):
    away = np.array([-30, -6, -1, 0, 1, 6, 30]) * math.sqrt(trials * q * (1 - q))
    k = np.round(trials * q + away)
    reference = [exact_log_pmf(each, trials, q) for each in k]
    ours = farthest(log_pmf(k, trials, q), reference)
    assert ours < 2e-13
    assert farthest(binom.logpmf(k, trials, q), reference) > 1000 * ours
    assert binom.pmf(k[0] - 20 * math.sqrt(trials * q), trials, q) == 0


def test_deviance():
    mean = 5e5
    for k in (mean + 1, mean + 100, mean + 3000, 2 * mean):
        exact = k * mp.log(mpf(k) / mean) + mean - k
        ours = float(deviance(np.array([k]), mean, np.array([k - mean]))[0] / exact - 1)
        assert abs(ours) < 4e-16
    assert abs(float(kl_div(mean + 1, mean) / exact_deviance(mean + 1, mean) - 1)) > 1e-6


def exact_deviance(k, mean):
    return k * mp.log(mpf(k) / mean) + mean - k


def test_stirling_error():
    for n in (1.0, 15.0, 16.0, 1e4, 1e6):
        exact = mp.loggamma(n + 1) - mp.log(mp.sqrt(2 * mp.pi * n)) - n * (mp.log(n) - 1)
        ours = stirling_error(np.array([n]))[0]
        assert abs(float(ours / exact - 1)) < 4e-16
    simple = gammaln(n + 1) - 0.5 * math.log(2 * math.pi * n) - n * (math.log(n) - 1)
    assert abs(float(simple / exact - 1)) > 1e-3


def ratio(x):
    x = mpf(x)
    return mp.erfc(x / mp.sqrt(2)) / 2 / mp.npdf(x)


def test_mills_ratio():
    x = np.array([-30.0, -5.0, -1.0, 0.0, 5.0, 100.0, 1e4])
    exact = [mp.log(ratio(each)) for each in x]
    scale = np.maximum(1.0, np.abs([float(e) for e in exact]))
    ours = mills.log_mills(x)
    assert max(farthest(a, [e]) / s for a, e, s in zip(ours, exact, scale, strict=True)) < 1e-15
    textbook = log_ndtr(-x) + x * x / 2 + mills.HALF_LOG_2PI
    assert farthest(textbook, exact) > 1e-9


@pytest.mark.parametrize("x", [-12.0, -5.0, -0.3, 0.0, 1.0, 3.0, 8.0, 40.0, 1e4])
@pytest.mark.parametrize("part", [1e-8, 1e-4, 0.3, 0.9, 2.0, 50.0])
def test_the_error_bound_of_a_change_of_the_ratio_holds(x, part):
    """Both sides of where the series takes over; the bound is on the logarithm."""
    a = part * mills.SMALL / mills.mills_slope(x)
    shift = np.array([a])
    for found, exact in (
        (mills.log_rise(x, shift), 1 - ratio(x) / ratio(mpf(x) - mpf(a))),
        (mills.log_drop(x, shift), 1 - ratio(mpf(x) + mpf(a)) / ratio(x)),
    ):
        value, bound = found
        assert farthest(value, [mp.log(exact)]) <= bound[0]
        if part < 1:
            assert bound[0] < 4e-15


def test_the_textbook_change_of_the_ratio_cancels():
    u, a = 0.0, 1e-8
    ahead, behind = log_ndtr(a - u), a * u - a * a / 2 + log_ndtr(-u)
    exact = 1 - ratio(u) / ratio(mpf(u) - mpf(a))
    assert abs(float(-math.expm1(behind - ahead) / exact - 1)) > 1e-9


def test_nodes_of_the_quadrature():
    nodes, weights = mills._nodes()
    assert weights.sum() == pytest.approx(1, abs=4e-16)
    # Exact for polynomials of degree 127.
    for n in (1, 7, 60, 127):
        assert weights @ nodes**n == pytest.approx(1 / (n + 1), rel=2e-14)


def test_log_sum_is_logsumexp():
    terms = np.random.default_rng(0).normal(size=500) * 100
    assert log_sum(terms) == pytest.approx(logsumexp(terms), rel=1e-15)
    assert log_sum(np.full(3, -np.inf)) == -np.inf


@pytest.mark.parametrize(("wrong", "runs"), [(0, 20), (3, 20), (20, 20), (500, 1000)])
def test_limits_are_scipys_exact_interval(wrong, runs):
    limits = error_limits(wrong, runs, 0, 10, 0.0, 0.9)
    one_sided = binomtest(wrong, runs, alternative="less").proportion_ci(0.95, method="exact")
    assert limits.fpr == pytest.approx(one_sided.high, rel=1e-12)
