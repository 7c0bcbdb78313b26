"""Arguments at the ends of their ranges: a number, infinity or a named refusal, no arithmetic error."""

from __future__ import annotations

import math

import mpmath as mp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from surefoot import privacy
from surefoot._numerics.hockey_stick.mixture import ADD, REMOVE
from surefoot.privacy._curves.resolved import FAR, ResolvedPair

DELTA = 1e-5
SMALL = st.floats(-300, -2).map(lambda x: 10.0**x)


def gaussian_epsilon(mu: mp.mpf, delta: float) -> mp.mpf:
    """Root of the closed form (arXiv 1805.06530, Theorem 8), at large mu: the second term is nothing."""
    return mu * mu / 2 + mu * quantile(mp.mpf(delta))


def quantile(p: mp.mpf) -> mp.mpf:
    """z with Phi(-z) = p."""
    return mp.sqrt(2) * mp.erfinv(1 - 2 * p)


def last_iterate_epsilon(sigma: mp.mpf, q: float, steps: int, delta: float) -> mp.mpf:
    """Of the larger direction where the counts of draws are far apart: from the tail of the binomial law."""
    weights = [
        mp.binomial(steps, k) * mp.mpf(q) ** k * (1 - mp.mpf(q)) ** (steps - k)
        for k in range(steps + 1)
    ]
    above, k = mp.mpf(0), steps
    while above + weights[k] <= delta:
        above, k = above + weights[k], k - 1
    spacing = 1 / (sigma * mp.sqrt(steps))
    u = k * spacing + quantile((delta - above) / weights[k])
    terms = [
        w * mp.exp(j * spacing * u - (j * spacing) ** 2 / 2 - u * u / 2)
        for j, w in enumerate(weights)
    ]
    return u * u / 2 + mp.log(mp.fsum(terms))


@pytest.mark.parametrize("sigma", [1e-6, 1e-8, 1e-9, 1e-10, 1e-13, 1e-30, 1e-100, 1e-150])
def test_last_iterate_at_noise_near_nothing(sigma: float) -> None:
    with mp.workdps(400):
        exact = last_iterate_epsilon(mp.mpf(sigma), 0.1, 10, DELTA)
        found = privacy.last_iterate(sigma, 0.1, 10).epsilon(DELTA)
        # The reference leaves out e^eps Phi(-u), which moves eps by a number of order 1.
        assert found.lower - 2 <= exact <= found.upper + 2
        assert abs(found.value - exact) <= 1e-12 * exact + 2
        assert found.upper - found.lower <= 1e-6 * float(exact)
    assert found.add == pytest.approx(-10 * math.log1p(-0.1), rel=2e-5)


@pytest.mark.parametrize("sigma", [1e-9, 1e-12, 1e-100, 1e-150])
def test_gaussian_forms_at_noise_near_nothing(sigma: float) -> None:
    with mp.workdps(400):
        for number, found in (
            (10, privacy.standard(sigma, 1.0, 10).epsilon(DELTA)),
            (3, privacy.epochs(sigma, 3).epsilon(DELTA)),
            (1, privacy.gaussian(1 / sigma).epsilon(DELTA)),
            (mp.mpf("0.1"), privacy.full_batch(sigma, 0.1, 10).epsilon(DELTA)),
        ):
            exact = gaussian_epsilon(mp.sqrt(number) / mp.mpf(sigma), DELTA)
            # A float64 of mu is off by 1e-16 of it.
            assert found.upper >= exact * (1 - 1e-15)
            assert abs(found.value / exact - 1) <= 1e-4


@given(
    sigma=SMALL,
    q=st.sampled_from([1e-300, 1e-6, 0.1, 0.5, 1.0]),
    steps=st.sampled_from([1, 10]),
)
@settings(max_examples=25, deadline=None)
def test_no_noise_is_too_small(sigma: float, q: float, steps: int) -> None:
    made = [] if sigma > 1e-3 else [privacy.standard(sigma, q, steps)]
    for mechanism in (
        *made,
        privacy.last_iterate(sigma, q, steps),
        privacy.full_batch(sigma, q, steps),
        privacy.epochs(sigma, steps),
        privacy.gaussian(sigma),
    ):
        eps, delta = mechanism.epsilon(DELTA), mechanism.delta(5.0)
        assert 0 <= eps.lower <= eps.value <= eps.upper
        assert 0 <= delta.lower <= delta.value <= delta.upper <= 1


@given(first=SMALL, factor=st.floats(1, 1e10), delta=st.floats(1e-12, 0.5))
@settings(max_examples=40, deadline=None)
def test_less_noise_never_leaks_less(first: float, factor: float, delta: float) -> None:
    low, high = (privacy.last_iterate(s, 0.3, 5).epsilon(delta) for s in (first, first * factor))
    assert low.upper >= high.lower


def test_both_forms_agree_where_they_meet() -> None:
    near, far = 0.999999 * FAR, 1.000001 * FAR
    for steps, q in ((1, 0.5), (10, 0.1), (1000, 1e-3)):
        for ask in (
            lambda m: m.epsilon(1e-7),
            lambda m: m.delta(3.0),
            lambda m: m.delta(4.0 * FAR * FAR),
        ):
            one, two = (
                ask(privacy.last_iterate(1 / d / math.sqrt(steps), q, steps)) for d in (near, far)
            )
            assert two.value == pytest.approx(one.value, rel=1e-5)


@pytest.mark.parametrize("way", [REMOVE, ADD])
def test_delta_of_epsilon_is_delta(way: int) -> None:
    for steps, q in ((1, 0.5), (1, 1.0), (10, 0.1), (1000, 0.01)):
        pair = ResolvedPair(steps, q, 3e11)
        eps = pair.epsilon(1e-4, way)
        if eps.value > 0:
            assert pair.delta(eps.upper * (1 + 1e-12), way).lower <= 1e-4
            assert pair.delta(eps.lower * (1 - 1e-12), way).upper >= 1e-4


def test_rates_and_epsilons_beyond_the_floats() -> None:
    assert privacy.standard(1.0, 1e-320, 10).epsilon(1e-20).value == 0
    assert privacy.last_iterate(1.0, 1e-320, 10).delta(0.1).upper < 1e-300
    for eps in (1e4, 1e100, 1e308):
        for mechanism in (
            privacy.standard(1.0, 0.1, 10),
            privacy.standard(1.0, 1.0, 10),
            privacy.standard(1.0, 0.1, 1),
            privacy.last_iterate(1.0, 0.1, 10),
            privacy.last_iterate(1.0, 0.1, 3, weights=[1.0, 2.0, 3.0]),
            privacy.gaussian(1.0),
        ):
            assert mechanism.delta(eps).upper <= 5e-324


@pytest.mark.parametrize("sigma", [1e-5, 1e-9, 1e-160])
def test_unequal_weights_name_the_noise_that_is_too_small(sigma: float) -> None:
    with pytest.raises(ValueError, match="noise_multiplier must be larger"):
        privacy.last_iterate(sigma, 0.1, 3, weights=[1.0, 2.0, 3.0])
    assert privacy.last_iterate(sigma, 0.1, 3, weights=[2.0, 2.0, 2.0]).epsilon(DELTA).value > 1e5
