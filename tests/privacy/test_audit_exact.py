"""Validity of the audit's statistics by exact probabilities: no sampling, and faults that must show."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import ndtr
from scipy.stats import binom, norm

from surefoot.privacy.audit import clopper_pearson, epsilon_one_run, p_value_one_run
from surefoot.privacy.audit.tradeoff import (
    gaussian_blowup,
    last_iterate_blowup,
    lower_hull,
    refuted,
)

ALPHA = 0.05


def per_canary(m, eps, delta):
    """Each coin is told: plainly with probability delta, else truly with e^eps / (1 + e^eps)."""
    right = 1 / (1 + math.exp(-eps))
    return binom.sf(np.arange(m + 1) - 1, m, delta + (1 - delta) * right)


def all_at_once(m, eps, delta):
    """With probability delta all coins are published, else each is told truly as above."""
    tail = binom.sf(np.arange(m + 1) - 1, m, 1 / (1 + math.exp(-eps)))
    return delta + (1 - delta) * tail


def some_at_once(m, eps, delta):
    """With probability m delta / i one of the m / i groups of i coins is published: delta for each coin."""
    i = max(1, m // 4)
    leak = delta * m / i
    right = 1 / (1 + math.exp(-eps))
    tail = binom.sf(np.arange(m + 1) - 1, m, right)
    told = binom.sf(np.arange(m + 1) - i - 1, m - i, right)
    return leak * told + (1 - leak) * tail


MECHANISMS = [per_canary, all_at_once, some_at_once]
SETTINGS = [
    (m, eps, delta)
    for m in (4, 20, 60)
    for eps in (0.0, 0.5, 2.0)
    for delta in (0.0, 1e-4, 0.01, 0.1)
]


def invalid(p_value, mechanism):
    """Settings and counts at which so many right guesses are likelier than the p-value says."""
    return [
        (m, eps, delta, v)
        for m, eps, delta in SETTINGS
        for v, chance in enumerate(mechanism(m, eps, delta))
        if chance > p_value(m, m, v, eps, delta) * (1 + 1e-9) + 1e-15
    ]


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_no_private_mechanism_beats_the_p_value(mechanism):
    assert invalid(p_value_one_run, mechanism) == []


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_a_p_value_without_delta_is_caught(mechanism):
    assert invalid(lambda m, r, v, eps, delta: p_value_one_run(m, r, v, eps, 0), mechanism)


def test_a_p_value_without_m_is_caught():
    def wrong(m, r, v, eps, delta):
        return p_value_one_run(m, r, v, eps, delta / m)

    assert invalid(wrong, all_at_once)
    assert invalid(wrong, per_canary)


def test_a_p_value_off_by_one_is_caught():
    def wrong(m, r, v, eps, delta):
        return p_value_one_run(m, r, min(v + 1, r), eps, delta) if v < r else 0.0

    assert invalid(wrong, per_canary)


@pytest.mark.parametrize("m", [20, 100, 400])
@pytest.mark.parametrize("eps", [0.2, 1.0, 2.5])
def test_the_bound_covers_randomised_response_and_hardly_more(m, eps):
    """The exact chance of a bound above the truth: at most 5 %, and the next count would exceed it."""
    right = 1 / (1 + math.exp(-eps))
    above = [v for v in range(m + 1) if epsilon_one_run(m, m, v, 0) > eps]
    if not above:
        # Too few canaries to refute even a wrong eps: all right is likelier than 5 %.
        assert right**m >= ALPHA
        return
    first = min(above)
    assert binom.sf(first - 1, m, right) <= ALPHA < binom.sf(first - 2, m, right)


class TestGaussianFamily:
    @pytest.mark.parametrize("mu", [0.1, 0.5, 1.5, 3.0])
    @pytest.mark.parametrize("m", [10, 50, 300])
    def test_rejections_of_the_true_curve_are_rare(self, mu, m):
        """Each of m canaries is guessed from its own N(0, 1) or N(mu, 1)."""
        tail = binom.sf(np.arange(m + 1) - 1, m, ndtr(mu / 2))
        curve = gaussian_blowup(mu)
        assert all(tail[v] <= ALPHA for v in range(m + 1) if refuted(m, m, v, ALPHA, curve))

    def test_rejections_are_not_idle(self):
        assert refuted(300, 300, 240, ALPHA, gaussian_blowup(0.5))

    def test_a_curve_that_leaks_too_little_is_caught(self):
        m, mu = 300, 1.5
        tail = binom.sf(np.arange(m + 1) - 1, m, ndtr(mu / 2))
        wrong = gaussian_blowup(0.3 * mu)
        assert any(tail[v] > ALPHA for v in range(m + 1) if refuted(m, m, v, ALPHA, wrong))


FAMILY = [(2.0, 0.01, 20), (1.0, 0.1, 50), (3.0, 0.05, 10), (6.0, 0.3, 2), (8.0, 0.5, 1)]


def error_rates(scale, q, steps):
    """Both error rates of every threshold test, directly from the mixture."""
    y = np.linspace(-9, 9 + scale * math.sqrt(steps), 20001)
    k = np.arange(steps + 1)
    weights = binom.pmf(k, steps, q)
    fnr = sum(
        w * norm.cdf(y - shift)
        for w, shift in zip(weights, k * scale / math.sqrt(steps), strict=True)
    )
    return norm.sf(y), fnr


class TestLastIterateFamily:
    @pytest.mark.parametrize(("scale", "q", "steps"), FAMILY)
    def test_the_curve_is_a_tradeoff_curve_below_both_directions(self, scale, q, steps):
        curve = last_iterate_blowup(scale, q, steps)
        x = np.linspace(0, 1, 801)
        y = np.array([curve(each) for each in x])
        assert (np.diff(y) >= 0).all()
        assert (np.diff(y, 2) >= -1e-12).all()
        fpr, fnr = error_rates(scale, q, steps)
        for a, b in ((fpr, fnr), (fnr, fpr)):
            # Below that 1 - a is not a any more, and the curve is too steep not to notice.
            resolved = a > 1e-9
            found = np.array([curve(1 - each) for each in a[resolved]])
            assert (found <= b[resolved] + 1e-12).all()

    @pytest.mark.parametrize(("scale", "q", "steps"), FAMILY)
    def test_and_close_to_their_hull(self, scale, q, steps):
        fpr, fnr = error_rates(scale, q, steps)
        points = np.array([[*fpr, *fnr, 0.0, 1.0], [*fnr, *fpr, 1.0, 0.0]])
        hull = lower_hull(points)
        curve = last_iterate_blowup(scale, q, steps)
        x = np.linspace(0.01, 0.99, 99)
        gap = np.interp(1 - x, *hull) - [curve(each) for each in x]
        # The steps of the table, at most .4 of a threshold's spacing.
        spacing = (18 + scale * math.sqrt(steps)) / 2000
        assert gap.min() >= -1e-6
        assert gap.max() <= 0.4 * spacing + 1e-6

    def test_the_smaller_direction_alone_is_not_convex(self):
        """Why a hull is taken at all."""
        fpr, fnr = error_rates(3.0, 0.05, 10)
        x = np.linspace(0.01, 0.99, 99)
        sides = [np.interp(x, a, b) for a, b in ((fpr[::-1], fnr[::-1]), (fnr, fpr))]
        assert np.diff(np.minimum(*sides), 2).min() < -1e-3

    @pytest.mark.parametrize(("scale", "q", "steps"), FAMILY)
    @pytest.mark.parametrize("m", [10, 60, 300])
    def test_rejections_of_the_true_curve_are_rare(self, scale, q, steps, m):
        fpr, fnr = error_rates(scale, q, steps)
        best = float((1 - (fpr + fnr) / 2).max())
        tail = binom.sf(np.arange(m + 1) - 1, m, best)
        curve = last_iterate_blowup(scale, q, steps)
        assert all(tail[v] <= ALPHA for v in range(m + 1) if refuted(m, m, v, ALPHA, curve))

    def test_rejections_are_not_idle(self):
        curve = last_iterate_blowup(1.0, 0.1, 50)
        assert refuted(300, 300, 270, ALPHA, curve)


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), min_size=1, max_size=12))
def test_hull_is_below_all_points_and_touches_its_corners(points):
    given_points = np.array(points, dtype=float).T
    corners = lower_hull(given_points)
    assert (np.interp(given_points[0], *corners) <= given_points[1] + 1e-9).all()
    assert {tuple(c) for c in corners.T} <= {tuple(p) for p in given_points.T}
    slopes = np.diff(corners[1]) / np.diff(corners[0])
    assert (np.diff(slopes) > 0).all()


class TestManyRuns:
    @pytest.mark.parametrize("n", [20, 60])
    @pytest.mark.parametrize(("eps", "delta"), [(0.0, 0.0), (1.0, 0.0), (2.0, 0.0), (1.0, 0.1)])
    def test_coverage_over_all_pairs_of_counts(self, n, eps, delta):
        """A mechanism on the border of (eps, delta)-DP: every pair of counts with its probability."""
        fpr = (1 - delta) / (1 + math.exp(eps))
        tpr = delta + math.exp(eps) * fpr
        assert 1 - fpr == pytest.approx(delta + math.exp(eps) * (1 - tpr))
        chance = np.outer(binom.pmf(range(n + 1), n, tpr), binom.pmf(range(n + 1), n, fpr))
        missed = sum(
            chance[tp, fp]
            for tp in range(n + 1)
            for fp in range(n + 1)
            if chance[tp, fp] > 1e-12 and clopper_pearson(tp, fp, n, delta).epsilon > eps
        )
        assert missed <= ALPHA

    def test_an_estimate_in_place_of_limits_is_caught(self):
        n, eps = 60, 1.0
        fpr = 1 / (1 + math.exp(eps))
        chance = np.outer(binom.pmf(range(n + 1), n, 1 - fpr), binom.pmf(range(n + 1), n, fpr))
        missed = sum(
            chance[tp, fp]
            for tp in range(1, n + 1)
            for fp in range(n + 1)
            if fp == 0 or math.log(tp / fp) > eps
        )
        assert missed > ALPHA

    def test_both_pairs_of_limits_count(self):
        """Accusations that are rare, and absolutions that are: each decides through its own pair."""
        rare = clopper_pearson(300, 0, 1000, 0)
        assert rare.epsilon == pytest.approx(math.log((1 - rare.fnr) / rare.fpr))
        often = clopper_pearson(1000, 700, 1000, 0)
        assert often.epsilon == pytest.approx(math.log((1 - often.fpr) / often.fnr))
        assert rare.epsilon == pytest.approx(often.epsilon)

    def test_a_family_that_cannot_do_so_well_is_refuted(self):
        """q = .01, T = 5: 95 % of the trainings never see the canary, whatever the noise."""
        assert clopper_pearson(990, 0, 1000, 0).last_iterate_epsilon(1e-5, 0.01, 5) == math.inf

    def test_a_separation_below_rounding_is_none(self):
        limits = type(clopper_pearson(5, 5, 10, 0))(0.3, 0.7, 0.0, 1e-17)
        assert limits.last_iterate_epsilon(1e-5, 0.1, 50) == 0
