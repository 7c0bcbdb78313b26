"""The bounds behind the audits: published values, small cases by enumeration, and coverage."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, norm

from surefoot.privacy import gaussian, last_iterate
from surefoot.privacy.audit import (
    clopper_pearson,
    epsilon_one_run,
    from_scores,
    p_value_one_run,
)
from surefoot.privacy.audit.tradeoff import gaussian_blowup, last_iterate_blowup

ONE_RUN = [
    (1000, 600, 600, 1e-5, 5.270399, 10.51489),
    (100, 100, 100, 1e-5, 3.490216, 8.21619),
    (1000, 100, 95, 1e-5, 2.165176, 3.32330),
    (5000, 2000, 1500, 1e-5, 1.011986, 1.57935),
    (4000, 320, 277, 1e-5, 1.581251, 2.23205),
]


@pytest.mark.parametrize(("m", "r", "v", "delta", "free", "family"), ONE_RUN)
def test_one_run_bounds(m, r, v, delta, free, family):
    assert epsilon_one_run(m, r, v, delta) == pytest.approx(free, abs=1e-5)
    found = epsilon_one_run(m, r, v, delta, method="one_run_fdp")
    assert found == pytest.approx(family, abs=1e-4)


def test_one_run_bound_of_pure_dp():
    assert epsilon_one_run(1000, 100, 95, 0) == pytest.approx(2.172434, abs=1e-5)
    # Without delta the p-value is a binomial tail.
    tail = binom.sf(94, 100, 1 / (1 + math.exp(-1.0)))
    assert p_value_one_run(1000, 100, 95, 1.0, 0) == pytest.approx(tail, rel=1e-12)


def test_the_p_value_is_the_published_listing():
    """The loop of arXiv 2305.08846's appendix, written down as it stands."""

    def listing(m, r, v, eps, delta):
        q = 1 / (1 + math.exp(-eps))
        beta = binom.sf(v - 1, r, q)
        alpha = total = 0.0
        for i in range(1, v + 1):
            total += binom.pmf(v - i, r, q)
            alpha = max(alpha, total / i)
        return min(beta + 2 * m * delta * alpha, 1.0)

    for m, r, v in ((100, 40, 33), (1000, 320, 200), (50, 10, 10), (30, 8, 1)):
        for eps, delta in ((0.0, 1e-3), (0.7, 1e-5), (3.0, 1e-2)):
            expected = listing(m, r, v, eps, delta)
            assert p_value_one_run(m, r, v, eps, delta) == pytest.approx(expected, rel=1e-10)


def test_the_family_recursion_is_the_published_listing():
    def listing(m, r, v, mu, alpha):
        x, h = alpha * v / m, alpha * (r - v) / m
        for i in range(v - 1, -1, -1):
            new = max(h, norm.cdf(norm.ppf(x) - mu))
            if new == h:
                break
            x = min(1.0, x + (i / (r - i)) * (new - h))
            h = new
        return x + h > r / m

    for m, r, v in ((100, 40, 33), (500, 60, 45), (200, 200, 150)):
        eps = epsilon_one_run(m, r, v, 1e-5, method="one_run_fdp")
        below = [mu for mu in np.linspace(0.01, 4, 200) if listing(m, r, v, mu, 0.05)]
        mu = max(below)
        assert gaussian(mu).epsilon(1e-5).value <= eps
        assert eps <= gaussian(mu + 0.021).epsilon(1e-5).value


@given(
    r=st.integers(1, 60),
    right=st.floats(0, 1),
    extra=st.integers(0, 500),
    delta=st.sampled_from([0.0, 1e-6, 1e-3]),
)
def test_bounds_are_sane(r, right, extra, delta):
    v = round(right * r)
    eps = epsilon_one_run(r + extra, r, v, delta)
    assert eps >= 0
    if v <= r / 2:
        assert eps == 0
    if v < r:
        assert eps <= epsilon_one_run(r + extra, r, v + 1, delta) + 1e-6
    assert epsilon_one_run(r + extra, r, v, delta, 0.99) <= eps + 1e-6


CLOPPER = [
    (950, 50, 1000, 0, 2.659752, 3.022059),
    (1000, 0, 1000, 0, 5.600588, 5.359823),
    (700, 300, 1000, 0.01, 0.695595, 0.882800),
]


@pytest.mark.parametrize(("tp", "fp", "runs", "delta", "eps", "mu"), CLOPPER)
def test_clopper_pearson(tp, fp, runs, delta, eps, mu):
    found = clopper_pearson(tp, fp, runs, delta)
    assert found.epsilon == pytest.approx(eps, abs=1e-6)
    assert found.mu == pytest.approx(mu, abs=1e-6)


def test_limits_cover_by_exact_enumeration():
    """For every true rate, the chance that the upper limit lies below it is at most 2.5 %."""
    n = 40
    limits = [clopper_pearson(n, k, n, 0).fpr for k in range(n + 1)]
    for p in np.linspace(0.01, 0.99, 50):
        missed = sum(binom.pmf(k, n, p) for k in range(n + 1) if limits[k] < p)
        assert missed <= 0.025


def test_family_conversions_of_one_point():
    """fpr .3, mu .7416: the last-iterate family with q = .1, T = 50 gives more than the Gaussian one."""
    found = clopper_pearson(700, 300, 1000, 0)
    exact = type(found)(0.3, float(norm.cdf(norm.ppf(0.7) - 0.7416)), 0.0, 0.7416)
    assert exact.gaussian_epsilon(1e-5) == pytest.approx(3.107, abs=2e-3)
    assert exact.last_iterate_epsilon(1e-5, 0.1, 50) == pytest.approx(4.262, abs=5e-3)


@given(fpr=st.floats(0.01, 0.9), sigma=st.floats(0.5, 4), q=st.floats(0.05, 0.9))
@settings(max_examples=10)
def test_last_iterate_family_returns_what_made_it(fpr, sigma, q):
    mechanism = last_iterate(sigma, q, 20)
    fnr = float(mechanism.tradeoff(fpr).value)
    mu = float(norm.ppf(1 - fpr) - norm.ppf(fnr))
    limits = type(clopper_pearson(5, 5, 10, 0))(fpr, fnr, 0.0, mu)
    if mu > 0.02:
        expected = mechanism.epsilon(1e-5).value
        assert limits.last_iterate_epsilon(1e-5, q, 20) == pytest.approx(
            expected, rel=1e-5, abs=1e-5
        )


class TestFamilyCurve:
    def test_gaussian_limit_of_the_last_iterate_family(self):
        """q = 1 has the Gaussian curve; the table may only lie below it."""
        x = np.linspace(0.01, 0.99, 25)
        pair = last_iterate_blowup(0.2, 0.999999, 16)
        exact = gaussian_blowup(0.2 * 4)
        for each in x:
            assert exact(each) - 0.01 <= pair(each) <= exact(each) + 1e-4

    def test_no_leak_is_the_identity(self):
        assert last_iterate_blowup(0.0, 0.1, 10)(0.3) == 0.3

    def test_bound_lies_between_the_free_one_and_the_ceiling_of_the_family(self):
        rng = np.random.default_rng(0)
        coins = rng.random(1000) < 0.5
        scores = 2.0 * coins + rng.standard_normal(1000)
        result = from_scores(
            scores, coins, method=("one_run", "one_run_last_iterate"), delta=1e-5, k=100,
            claimed=(1.0, 0.1, 50),
        )  # fmt: skip
        assert result.bounds["one_run"] < result.bounds["one_run_last_iterate"] < 60


def coverage(mu, trials, seed):
    rng = np.random.default_rng(seed)
    truth = gaussian(mu).epsilon(1e-5).value
    rows = []
    for _ in range(trials):
        coins = rng.random(2000) < 0.5
        scores = mu * coins + rng.standard_normal(2000)
        found = from_scores(scores, coins, method=("one_run", "one_run_fdp"), delta=1e-5, k=160)
        rows.append((found.bounds["one_run"], found.bounds["one_run_fdp"]))
    return truth, np.array(rows)


@pytest.mark.parametrize(("mu", "free", "family"), [(1.0, 1.75, 2.68), (2.0, 3.86, 6.30)])
def test_coverage_on_a_gaussian_channel(mu, free, family):
    truth, found = coverage(mu, 20, seed=1)
    assert (found <= truth).all()
    # Means over 60 trials elsewhere; 20 here have twice their spread.
    error = 4 * found.std(axis=0, ddof=1) / math.sqrt(20)
    assert (np.abs(found.mean(axis=0) - [free, family]) <= error + 0.02).all()


@pytest.mark.acceptance
@pytest.mark.parametrize(
    ("mu", "free", "family"), [(0.5, 0.71, 1.07), (1, 1.75, 2.68), (2, 3.86, 6.30), (3, 4.58, 7.69)]
)
def test_full_coverage(mu, free, family, measured):
    truth, found = coverage(float(mu), 60, seed=2)
    measured(f"8.10 mu {mu}: mean bounds", f"{free} / {family}", np.round(found.mean(axis=0), 3))
    measured(f"8.10 mu {mu}: violations", "<= 5 %", (found > truth).mean(axis=0))
    assert ((found > truth).mean(axis=0) <= 0.05).all()
    error = 4 * found.std(axis=0, ddof=1) / math.sqrt(60)
    assert (np.abs(found.mean(axis=0) - [free, family]) <= error + 0.02).all()


def test_coverage_on_randomised_response():
    """Each coin is told truly with probability e^eps/(1+e^eps): the case in which the p-value is exact."""
    eps, m, trials = 1.0, 300, 400
    right = 1 / (1 + math.exp(-eps))
    rng = np.random.default_rng(5)
    violations = 0
    for _ in range(trials):
        coins = rng.random(m) < 0.5
        told = np.where(rng.random(m) < right, coins, ~coins)
        violations += epsilon_one_run(m, m, int((told == coins).sum()), 0) > eps
    # 5 % at most; 400 trials exceed 8.5 % with probability below .2 %.
    assert violations / trials <= 0.085


def test_a_wrong_term_for_delta_is_seen():
    """Planted fault: without the factor 2 m the bound for tiny data convicts an honest mechanism.

    (0, delta)-DP: each canary's coin is published with probability delta, else nothing is.
    """
    m, delta, trials = 200, 0.02, 300
    rng = np.random.default_rng(6)
    wrong = honest = 0
    for _ in range(trials):
        coins = rng.random(m) < 0.5
        leaked = rng.random(m) < delta
        guesses = int(leaked.sum())
        if guesses == 0:
            continue
        honest += p_value_one_run(m, guesses, guesses, 0.0, delta) < 0.05
        wrong += p_value_one_run(1, 1, 1, 0.0, 0.0) < 0.05 or 0.5**guesses + delta < 0.05
        assert coins.shape == leaked.shape
    assert honest / trials <= 0.05
    assert wrong / trials > 0.2


def test_all_sixteen_outcomes_of_two_guesses_by_enumeration():
    """Pure DP, two canaries: the p-value at eps of the truth is at least the chance of the outcome."""
    for eps in (0.0, 0.5, 2.0):
        p = 1 / (1 + math.exp(-eps))
        for v in (1, 2):
            outcomes = itertools.product([True, False], repeat=2)
            chance = sum(
                np.prod([p if right else 1 - p for right in each])
                for each in outcomes
                if sum(each) >= v
            )
            assert p_value_one_run(2, 2, v, eps, 0) == pytest.approx(chance, rel=1e-12)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((100, 50, 51, 1e-5), "correct must be at most guesses = 50, got 51"),
        ((100, 101, 50, 1e-5), "guesses must be at most m = 100, got 101"),
        ((0, 0, 0, 1e-5), "m must be .*got 0"),
        ((100, 50, 40, 1.0), r"delta must be in \[0, 1\), got 1.0"),
        ((100, 50, 40, -1e-5), r"delta must be in \[0, 1\), got -1e-05"),
        ((100, 50, 40, 1e-5, 1.0), "confidence must be strictly between 0 and 1, got 1.0"),
        ((100, 50.5, 40, 1e-5), "guesses must be a whole number.*got 50.5"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        epsilon_one_run(*arguments)
    with pytest.raises(ValueError, match="delta must be positive for method 'one_run_fdp'"):
        epsilon_one_run(100, 50, 40, 0, method="one_run_fdp")
    with pytest.raises(ValueError, match="tp must be at most runs = 10, got 11"):
        clopper_pearson(11, 0, 10, 0)
