"""Proven means proven: never below the exact value, tight, and said by what; against independent numbers."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mpmath import mp, mpf

from surefoot._numerics.hockey_stick.mixture import ADD, REMOVE, log_sum
from surefoot.privacy import gaussian, last_iterate, standard
from surefoot.privacy._curves import proven
from surefoot.privacy._curves.composed import OUTSIDE, Composition, log_share
from surefoot.privacy._curves.hits import Hits, gaussian_log_delta
from surefoot.privacy._curves.proven import Bounds
from surefoot.privacy._curves.step_loss import GridLaw, StepLoss
from surefoot.privacy.doors.dp_accounting import account

from .two_steps import two_steps

INDEPENDENT = [(1.0, 0.3, 1e-14), (0.5, 0.01, 1e-6), (0.3, 1e-3, 1e-5), (5.0, 0.9, 1e-4)]


def composition(sigma, q, steps, way, log_delta):
    reach = math.sqrt(2 * (math.log(steps) + 21 - log_delta))
    return Composition(((StepLoss(sigma, q, way, reach), steps),))


def by_transform(sigma, q, steps, delta):
    """The discretised loss alone, no closed form: the larger direction."""
    found = []
    for way in (REMOVE, ADD):
        c = composition(sigma, q, steps, way, math.log(delta))
        order = c.renyi_epsilon(math.log(delta))
        found.append(c.epsilon(math.log(delta), order, order.bound)[0])
    return max(found)


class TestNeverBelow:
    """The value proves its delta: the exact delta there is at most that."""

    @pytest.mark.parametrize(("sigma", "q", "delta"), INDEPENDENT)
    def test_two_steps(self, sigma, q, delta):
        found = standard(sigma, q, 2).epsilon(delta)
        assert "PLD on a grid" in found.note
        exact = two_steps(sigma, q, found.value)
        assert exact <= delta
        # And tight: a little less is not private.
        assert two_steps(sigma, q, found.value / 1.002) > delta
        assert exact <= standard(sigma, q, 2).delta(found.value).value <= exact * 1.002

    @given(
        mu=st.floats(0.01, 30),
        steps=st.integers(2, 10**4),
        log_delta=st.one_of(st.floats(-40, -1), st.floats(-680, -40)),
    )
    @settings(max_examples=6)
    def test_the_transform_against_the_closed_form_of_a_gaussian(self, mu, steps, log_delta):
        """Down to delta = 1e-295, where a plain transform has nothing but its own rounding."""
        delta = math.exp(log_delta)
        exact = gaussian(mu).epsilon(delta)
        if exact.value == 0:
            return
        found = by_transform(math.sqrt(steps) / mu, 1.0, steps, delta)
        assert exact.lower <= found <= exact.value * 1.001 + 1e-12

    @pytest.mark.parametrize(
        ("sigma", "steps", "delta", "wrong"), [(100, 10**4, 1e-12, 7.22337), (0.125, 1, 1e-14, 0)]
    )
    def test_full_batches_have_the_gaussian_form(self, sigma, steps, delta, wrong):
        value = standard(sigma, 1.0, steps).epsilon(delta)
        exact = gaussian(math.sqrt(steps) / sigma).epsilon(delta)
        assert value.value == exact.upper
        assert value.value - value.lower <= 1e-9
        assert value.value > wrong + 0.01
        assert "Gaussian mechanism, exact" in value.note

    def test_linear_losses_stay_below_without_a_clamp(self):
        """The floor is computed elsewhere; none of these touches it from below."""
        rng = np.random.default_rng(0)
        for _ in range(3):
            steps, q = int(10 ** rng.uniform(0.5, 4)), 10 ** rng.uniform(-4, -0.01)
            sigma = max(0.2, q * math.sqrt(steps) * 10 ** rng.uniform(-1, 1))
            delta = 10 ** rng.uniform(-15, -2)
            floor = last_iterate(sigma, q, steps).epsilon(delta).lower
            assert floor <= Bounds(((sigma, q, steps),)).epsilon(delta).value

    def test_a_floor_above_the_proven_value_would_win_and_show(self, monkeypatch):
        """Planted fault: the proven side is too small."""
        from surefoot.privacy import composition as module
        from surefoot.privacy._curves.proven import Proven

        monkeypatch.setattr(module, "proven_epsilon", lambda *_, **__: Proven(0.1, "a fault"))
        value = standard(1.0, 0.1, 10).epsilon(1e-5)
        assert value.value == value.lower == last_iterate(1.0, 0.1, 10).epsilon(1e-5).lower > 0.1

    def test_a_grid_that_rounds_down_is_seen(self, monkeypatch):
        """Planted fault: every loss one point of the grid too small."""
        honest = StepLoss.on_grid

        def lower(self, h):
            law = honest(self, h)
            return GridLaw(law.first - 1, law.log_mass, law.log_lost)

        monkeypatch.setattr(StepLoss, "on_grid", lower)
        exact = gaussian(1.0).epsilon(1e-5).lower
        assert by_transform(10.0, 1.0, 100, 1e-5) < exact


class TestAllowance:
    """What the transform may err is derived; here it is measured."""

    def test_the_share_is_the_largest_value_of_what_is_summed(self):
        x = np.geomspace(1e-9, 60, 400_001)
        for theta in (0.01, 0.5, 3.0, 200.0):
            largest = (np.exp(-theta * x) * -np.expm1(-x)).max()
            assert largest == pytest.approx(math.exp(log_share(theta)), rel=1e-6)
            assert largest <= math.exp(log_share(theta)) * (1 + 1e-12)
        assert log_share(0.0) == 0

    @pytest.mark.parametrize(("theta", "doublings"), [(0.0, 3), (6.0, 5), (20.0, 6)])
    def test_rounding_against_a_direct_convolution_in_extended_precision(self, theta, doublings):
        h, steps = 0.02, 2**doublings
        c = composition(1.0, 0.05, steps, REMOVE, math.log(1e-9))
        law = c.transform(theta, h)
        (grid,) = c._grid(h)
        log_mass = grid.log_mass + theta * h * grid.index
        p = np.exp((log_mass - log_sum(log_mass)).astype(np.longdouble))
        first = grid.first
        for _ in range(doublings):
            p, first = np.convolve(p, p), 2 * first
        exact = np.zeros(len(law.mass), dtype=np.longdouble)
        kept = p[max(law.first - first, 0) :][: len(law.mass)]
        exact[max(first - law.first, 0) :][: len(kept)] = kept
        outside = 2 * math.exp(-OUTSIDE)
        assert float(np.abs(exact - law.mass).sum()) <= law.eta
        # Rounding alone, without what lies outside of the window, stays within what is left for it.
        rounding = float(np.abs(exact - law.mass).sum()) - float(1 - kept.sum())
        assert rounding <= law.eta - outside
        assert law.eta - outside < 1e-9

    def test_a_plain_transform_errs_by_more_than_its_delta(self):
        """What a tilt is for: at theta = 0 the allowance exceeds 1e-14, tilted it is a share of delta."""
        c = composition(5.0, 0.5, 3000, REMOVE, math.log(1e-13))
        order = c.renyi_epsilon(math.log(1e-13))
        plain, tilted = c.transform(0.0, 0.02), c.transform(order.theta, 0.02)
        assert plain.log_delta(60.0) > math.log(1e-13)
        assert tilted.log_delta(56.0) < math.log(1e-13)

    @pytest.mark.parametrize("way", [REMOVE, ADD])
    @pytest.mark.parametrize(("sigma", "q"), [(1.0, 0.01), (0.05, 0.3), (30.0, 1e-6), (2.0, 1.0)])
    def test_one_step_on_a_grid_dominates_the_true_one(self, way, sigma, q):
        """At every eps, and the probability of the other world is at most 1."""
        law = StepLoss(sigma, q, way, 9.0).on_grid(0.03 * min(1.0, q / sigma))
        mass, loss = np.exp(law.log_mass), law.index * 0.03 * min(1.0, q / sigma)
        assert mass.sum() == pytest.approx(1, abs=1e-13)
        assert float(mass @ np.exp(-loss)) <= 1 + 1e-12
        exact = last_iterate(sigma, q, 1).pair if q < 1 else gaussian(1 / sigma).pair
        for eps in np.linspace(0, loss[-1], 7)[:-1]:
            above = float(mass @ np.maximum(0.0, -np.expm1(np.minimum(eps - loss, 0.0))))
            assert above >= exact.delta(float(eps), way).lower * (1 - 1e-10) - 1e-18


class TestHits:
    def test_gaussian_curve_in_sixty_digits(self):
        mp.dps = 60
        for eps, mu in [(0.0, 1e-6), (1e-3, 1e-3), (2.0, 1.0), (50.0, 3.0), (900.0, 30.0)]:
            e, m = mpf(eps), mpf(mu)
            exact = mp.ncdf(m / 2 - e / m) - mp.exp(e) * mp.ncdf(-m / 2 - e / m)
            found = float(gaussian_log_delta(eps, np.array([mu]))[0])
            assert float(mp.log(exact)) <= found <= float(mp.log(exact)) + 1e-8

    def test_tiny_noise_counts_draws(self):
        """Where each draw tells everything, epsilon is that of the number of draws."""
        hits = Hits(1e-3, 0.01, 100)
        found = standard(1e-3, 0.01, 100).epsilon(1e-5)
        assert "mixture over draws" in found.note
        assert hits.log_delta(found.value) <= math.log(1e-5)
        # Seven draws have probability 5e-5, eight 7e-6: between these two Gaussian mechanisms.
        draws = 7
        assert draws * 5e5 * 0.98 < found.value < (draws + 1) * 5e5 * 1.02


LISTED = [
    (1.0, 0.01, 1000, 1e-13, 4.2292, 4.2310),
    (1.0, 0.01, 1000, 1e-14, 4.54, 4.55),
    (1.0, 0.01, 1000, 1e-15, 4.85, 4.86),
    (5.0, 0.5, 3000, 1e-13, 55.08, 55.26),
    (1.0, 1e-9, 10**6, 1e-5, 0.0, 0.0),
]


class TestTight:
    @pytest.mark.parametrize(("sigma", "q", "steps", "delta", "low", "high"), LISTED)
    def test_listed(self, sigma, q, steps, delta, low, high):
        assert low <= standard(sigma, q, steps).epsilon(delta).value <= high

    @pytest.mark.acceptance
    def test_listed_of_a_million_steps(self, measured):
        for setting, most in [
            ((1.0, 1e-6, 10**6, 1e-5), 0.0028),
            ((8.0, 1e-5, 10**6, 1e-6), 0.0036),
            ((1e6, 1e-6, 10**9, 1e-12), 1.2e-7),
        ]:
            value = standard(*setting[:3]).epsilon(setting[3])
            measured(f"14.2 {setting}", f"<= {most}", value.value)
            assert value.lower <= value.value <= most

    @given(
        sigma=st.floats(0.3, 20), q=st.floats(1e-5, 1.0), steps=st.integers(1, 10**4),
        log_delta=st.floats(-45, -1),
    )  # fmt: skip
    @settings(max_examples=3)
    def test_never_above_renyi(self, sigma, q, steps, log_delta):
        delta = math.exp(log_delta)
        value = standard(sigma, q, steps).epsilon(delta).value
        assert value <= standard(sigma, q, steps, method="rdp").epsilon(delta).value * (1 + 1e-9)

    @pytest.mark.acceptance
    @given(
        log_sigma=st.floats(-4, 14), log_q=st.floats(-20, 0), log_steps=st.floats(0, 18),
        log_delta=st.floats(-45, -0.7),
    )  # fmt: skip
    @settings(max_examples=150, deadline=None)
    def test_never_above_the_renyi_value_of_a_peer(self, log_sigma, log_q, log_steps, log_delta):
        sigma, q, delta = math.exp(log_sigma), math.exp(log_q), math.exp(log_delta)
        steps = int(math.exp(log_steps))
        value = standard(sigma, q, steps).epsilon(delta).value
        assert value <= standard(sigma, q, steps, method="rdp").epsilon(delta).value * (1 + 1e-9)
        theirs = account(((sigma, q, steps),), "rdp").epsilon(delta)
        # Ours has 1e-13 a step for rounding, theirs nothing.
        assert value <= theirs * (1 + 1e-4) + 1e-12

    @pytest.mark.parametrize(("sigma", "q", "steps"), [(1.0, 0.01, 1000), (0.3, 1e-4, 50)])
    def test_monotone_in_delta(self, sigma, q, steps):
        deltas = [1e-1, 1e-5, 1e-13, 1e-14, 1e-15, 1e-17, 1e-299]
        values = [standard(sigma, q, steps).epsilon(d).value for d in deltas]
        assert (np.diff(values) >= 0).all()
        assert values[-1] < math.inf

    @pytest.mark.acceptance
    def test_between_the_two_estimates_of_a_peer(self):
        """dp-accounting's optimistic and pessimistic curve on a grid ten times finer than its usual one."""
        from dp_accounting.pld import privacy_loss_distribution as pld

        sigma, q, steps, delta = 1.0, 0.02, 200, 1e-6
        low, high = (
            pld.from_gaussian_mechanism(
                sigma, pessimistic_estimate=pessimistic, value_discretization_interval=1e-4,
                sampling_prob=q, use_connect_dots=pessimistic,
            ).self_compose(steps).get_epsilon_for_delta(delta)
            for pessimistic in (False, True)
        )  # fmt: skip
        assert low <= standard(sigma, q, steps).epsilon(delta).value <= high * 1.0005

    def test_zero_only_where_the_curve_starts_below_delta(self):
        rng = np.random.default_rng(3)
        zeros = 0
        for _ in range(14):
            steps, q = int(10 ** rng.uniform(0, 4)), 10 ** rng.uniform(-7, -1)
            sigma, delta = 10 ** rng.uniform(-0.5, 3), 10 ** rng.uniform(-9, -1)
            bounds = Bounds(((sigma, q, steps),))
            starts = last_iterate(sigma, q, steps).delta(0.0).lower
            if starts > delta or bounds.total_variation <= delta:
                zero = bounds.epsilon(delta).value == 0
                assert zero == (bounds.total_variation <= delta)
                zeros += zero
        assert 1 < zeros < 12
        # Between the heuristic's total variation and the composed one: only the first curve starts below.
        low, high = (
            last_iterate(1.0, 0.3, 3).delta(0.0).upper,
            standard(1.0, 0.3, 3).delta(0.0).value,
        )
        assert low < 0.99 * high
        between = math.sqrt(low * high)
        assert last_iterate(1.0, 0.3, 3).epsilon(between).value == 0
        assert standard(1.0, 0.3, 3).epsilon(between).value > 0

    def test_steps_that_differ_and_too_many_kinds(self, monkeypatch):
        sigmas = [1.0, 1.2, 1.4, 2.0]
        mixed = standard(sigmas, 0.05, 4).epsilon(1e-6).value
        assert standard(2.0, 0.05, 4).epsilon(1e-6).value < mixed
        assert mixed < standard(1.0, 0.05, 4).epsilon(1e-6).value
        # Kinds put together get the smaller noise of the two.
        monkeypatch.setattr(proven, "MOST_RUNS", 2)
        fewer = standard(sigmas, 0.05, 4).epsilon(1e-6).value
        assert fewer == standard([1.0, 1.0, 1.4, 1.4], 0.05, 4).epsilon(1e-6).value > mixed


class TestWithoutNoise:
    def test_what_no_noise_hides_is_the_chance_of_a_draw(self):
        drawn = 1 - 0.999**10
        some = standard(0.0, 1e-3, 10)
        assert some.delta(3.0).value == pytest.approx(drawn, rel=1e-9)
        assert some.epsilon(drawn * 0.999).value == math.inf
        assert some.epsilon(drawn * 1.001).value == 0
        assert "noiseless" in some.epsilon(drawn * 1.001).note

    def test_noise_in_the_other_steps_has_what_is_left_of_delta(self):
        mixed = standard([0.0] + [1.0] * 5, [1e-6] + [0.1] * 5, 6)
        value = mixed.epsilon(1e-5)
        rest = standard(1.0, 0.1, 5)
        assert rest.epsilon(1e-5).value < value.value
        assert value.value == pytest.approx(rest.epsilon(9e-6).value, rel=1e-6)
        assert mixed.epsilon(9e-7).value == math.inf
