"""Family bounds from ranks: exact probabilities, coverage, and the gain over two limits and a halving."""

import math

import numpy as np
import pytest
from scipy.special import ndtr

from surefoot.privacy import gaussian, last_iterate
from surefoot.privacy.audit import from_scores
from surefoot.privacy.audit.ranks import Ranks, few_misses
from surefoot.privacy.audit.scores import _limits, _threshold

DELTA, CONFIDENCE = 1e-5, 0.95


@pytest.mark.parametrize(("outside", "inside", "k"), [(5, 4, 1), (12, 30, 0), (40, 10, 39)])
def test_without_a_leak_all_orders_are_equally_likely(outside, inside, k):
    """The number of misses is then negative hypergeometric: binomial coefficients, no integral."""
    each = [
        math.comb(j + outside - k - 1, j) * math.comb(inside - j + k, inside - j)
        for j in range(inside + 1)
    ]
    total = math.comb(outside + inside, inside)
    assert sum(each) == total
    for missed in range(inside + 1):
        found = few_misses(k, outside, missed, inside, ndtr)
        assert found == pytest.approx(sum(each[: missed + 1]) / total, rel=1e-9, abs=1e-14)


def scores(mu, outside, inside, rng):
    return mu + rng.standard_normal(inside), rng.standard_normal(outside)


def misses_of_the_bound(mu, outside, inside, trials, seed, spoil=lambda x: x):
    """How often the true mu lies below its lower bound: whether it is refuted."""
    rng, wrong = np.random.default_rng(seed), 0
    for _ in range(trials):
        found = Ranks(*scores(mu, outside, inside, rng), CONFIDENCE)
        found.seen = [(k, spoil(missed)) for k, missed in found.seen]
        wrong += found._doubt(lambda t: ndtr(t - mu)) < 1
    return wrong / trials


def test_coverage():
    # At most 5 %; 600 trials exceed 7.9 % with probability below .1 %.
    assert misses_of_the_bound(0.5, 200, 150, 600, seed=1) <= 0.079


def test_a_fault_in_the_count_is_seen():
    """Planted fault: a tenth of the misses is lost."""
    assert misses_of_the_bound(0.5, 200, 150, 200, 2, lambda x: int(0.9 * x)) > 0.1


@pytest.mark.acceptance
@pytest.mark.parametrize(("outside", "inside"), [(1000, 1000), (200, 100), (30, 20), (10, 300)])
def test_coverage_of_all(outside, inside, measured):
    for mu in (0.0, 0.3, 1.0, 3.0):
        wrong = misses_of_the_bound(mu, outside, inside, 4000, seed=int(10 * mu) + 3)
        measured(f"14.3 misses at {outside}, {inside}, mu {mu}", "<= 5 % + 2 s.e.", wrong)
        assert wrong <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / 4000)


def gain(mu, trials, seed):
    """Mean bound over truth at 1,000 runs a side: by ranks, and by two limits on half of the runs."""
    rng, rows = np.random.default_rng(seed), []
    truth = gaussian(mu).epsilon(DELTA).value
    for _ in range(trials):
        inside, outside = scores(mu, 1000, 1000, rng)
        at = _threshold(inside[::2], outside[::2], DELTA, CONFIDENCE)
        halved = _limits(inside[1::2], outside[1::2], at, DELTA, CONFIDENCE)
        ranked = Ranks(inside, outside, CONFIDENCE).gaussian_epsilon(DELTA)
        rows.append((ranked / truth, halved.gaussian_epsilon(DELTA) / truth))
    return np.mean(rows, axis=0)


def test_gain_at_a_small_leak():
    """Where two limits on half of the runs leave .15 to .2 of the truth."""
    ranked, halved = gain(0.3, 12, seed=0)
    assert halved < 0.3
    assert ranked > 0.5


@pytest.mark.acceptance
def test_gain_of_all(measured):
    for mu in (0.2, 0.3, 0.5, 1.0, 2.0):
        ranked, halved = gain(mu, 100, seed=4)
        measured(f"14.3 mu {mu}: bound / truth", "more than by two limits", (ranked, halved))
        assert ranked > halved + 0.05
        assert ranked >= 0.3


def test_ties_help_nobody():
    coins = np.arange(40) % 2 == 0
    result = from_scores(
        np.zeros(40), coins, method=("gdp", "last_iterate"), delta=DELTA, claimed=(1.0, 0.1, 5)
    )
    assert result.bounds["gdp"] == result.bounds["last_iterate"] == 0


def test_the_last_iterate_family():
    """At q = 1 it is the Gaussian one; at a small q its bound stays below what made the scores."""
    rng = np.random.default_rng(0)
    draws = rng.binomial(50, 0.1, 500)
    inside, outside = draws / math.sqrt(50) + rng.standard_normal(500), rng.standard_normal(500)
    ranks = Ranks(inside, outside, CONFIDENCE)
    assert ranks.last_iterate_epsilon(DELTA, 1.0, 7) == pytest.approx(
        ranks.gaussian_epsilon(DELTA), rel=1e-6
    )
    truth = last_iterate(1.0, 0.1, 50).epsilon(DELTA).value
    assert 0.3 * truth < ranks.last_iterate_epsilon(DELTA, 0.1, 50) < truth
    assert ranks.last_iterate_epsilon(DELTA, 0.0, 50) == 0
    # A canary that is drawn once in a hundred trainings cannot be told so well.
    far = Ranks(inside + 20, outside, CONFIDENCE)
    assert far.last_iterate_epsilon(DELTA, 1e-3, 10) == math.inf
    assert far.mu() > 3
