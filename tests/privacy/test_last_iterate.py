"""The heuristic's numbers: 50-digit values, an independent evaluation, limits, bounds, monotony."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import trapezoid
from scipy.stats import norm

from surefoot.privacy import LinearWeights, full_batch, gaussian, last_iterate
from surefoot.privacy.result import HONESTY

from .mixture_reference import Reference

EXACT = [
    (1, 0.1, 100, 1, 0.13429661071716225, 0.10456005484144777),
    (0.5, 0.01, 100, 2, 1.3193596292719897e-9, 0.0),
    (0.5, 0.1, 20, 4, 0.0037538929529393577, None),
    (2, 0.05, 200, 0.3, 0.046123489260610842, 0.042943591888709838),
    (1, 0.1, 100, 5, 2.8021443855696792e-5, 6.5575969719433755e-12),
    (0.3, 0.01, 50, 1, 0.001388169996905997, None),
]


@pytest.mark.parametrize(("sigma", "q", "steps", "eps", "remove", "add"), EXACT)
def test_fifty_digits(sigma, q, steps, eps, remove, add):
    value = last_iterate(sigma, q, steps).delta(eps)
    assert value.remove == pytest.approx(remove, rel=1e-12)
    if add is not None:
        assert value.add == pytest.approx(add, rel=1e-12)
    assert value.lower <= max(remove, add or 0.0) <= value.upper
    assert value.upper - value.lower <= 1e-11 * value.value


@settings(max_examples=40)
@given(
    sigma=st.floats(0.2, 4),
    q=st.floats(0.005, 0.95),
    steps=st.integers(1, 40),
    eps=st.floats(0, 6),
)
def test_bounds_hold_the_reference(sigma, q, steps, eps):
    reference = Reference(sigma, q, steps, digits=40)
    remove, add = float(reference.remove(eps)), float(reference.add(eps))
    value = last_iterate(sigma, q, steps).delta(eps)
    assert value.remove == pytest.approx(remove, rel=1e-11, abs=1e-290)
    assert value.add == pytest.approx(add, rel=1e-11, abs=1e-290)
    assert value.lower <= max(remove, add) <= value.upper


@settings(max_examples=40)
@given(
    sigma=st.floats(0.3, 4),
    q=st.floats(0.005, 0.9),
    steps=st.integers(1, 30),
    delta=st.floats(1e-12, 0.5),
)
def test_epsilon_inverts_delta(sigma, q, steps, delta):
    found = last_iterate(sigma, q, steps).epsilon(delta)
    assert 0 <= found.lower <= found.value <= found.upper
    if found.value > 0:
        back = last_iterate(sigma, q, steps).delta(found.value)
        assert back.value == pytest.approx(delta, rel=1e-8)


@pytest.mark.parametrize(
    ("sigma", "q", "z", "divergence", "eps"),
    [
        (1, 0.01, 3, 0.00106426389937543, 80.0392157495223316),
        (3, 0.001, 4, 2.2264361065569e-6, 1.38972161340564624),
        (30, 0.001, 4, 2.36505742324161e-7, 0.133897214199372637),
    ],
)
def test_a_million_steps(sigma, q, z, divergence, eps):
    assert last_iterate(sigma, q, 10**6).delta(eps).remove == pytest.approx(divergence, rel=1e-11)


@pytest.mark.parametrize(
    ("setting", "delta", "remove", "add"),
    [
        ((1, 0.5, 20000), 1e-5, 2838.35617876, 2241.93366801),
        ((1, 0.5, 10**6), 1e-6, 127658.96, 102035.948),
        ((2, 1e-4, 10**9), 1e-6, 8.30657, None),
        ((2, 1e-3, 10**8), 1e-6, 35.57194, None),
    ],
)
def test_far_out(setting, delta, remove, add):
    value = last_iterate(*setting).epsilon(delta)
    assert value.remove == pytest.approx(remove, rel=1e-6 if remove != 2838.35617876 else 1e-8)
    if add is not None:
        assert value.add == pytest.approx(add, rel=1e-8)
    assert 0 < value.upper - value.lower < 1e-6 * value.value


def test_the_profile_over_steps_has_its_minimum_near_twenty():
    expected = {
        1: 4.28542, 2: 2.72818, 5: 1.47109, 10: 1.11199, 20: 1.01250, 50: 1.10892, 100: 1.32466,
        1000: 3.40144,
    }  # fmt: skip
    for steps, eps in expected.items():
        assert last_iterate(0.5, 0.01, steps).epsilon(1e-6).value == pytest.approx(eps, abs=6e-6)
    profile = [last_iterate(0.5, 0.01, t).epsilon(1e-6).value for t in range(10, 40)]
    assert 15 <= 10 + int(np.argmin(profile)) <= 30


@settings(max_examples=30)
@given(
    q=st.floats(0.01, 0.9),
    steps=st.integers(1, 300),
    pair=st.tuples(st.floats(0.3, 5), st.floats(0.3, 5)),
)
def test_more_noise_leaks_less(q, steps, pair):
    less, more = sorted(pair)
    assert (
        last_iterate(more, q, steps).epsilon(1e-5).lower
        <= last_iterate(less, q, steps).epsilon(1e-5).upper
    )


@settings(max_examples=30)
@given(
    sigma=st.floats(0.3, 5),
    steps=st.integers(1, 300),
    pair=st.tuples(st.floats(0.001, 1), st.floats(0.001, 1)),
)
def test_more_sampling_leaks_more(sigma, steps, pair):
    less, more = sorted(pair)
    assert (
        last_iterate(sigma, less, steps).epsilon(1e-5).lower
        <= last_iterate(sigma, more, steps).epsilon(1e-5).upper
    )


@given(sigma=st.floats(0.3, 20), steps=st.integers(1, 1000), eps=st.floats(0, 30))
def test_full_batch_is_the_gaussian_mechanism(sigma, steps, eps):
    mu = math.sqrt(steps) / sigma
    value = last_iterate(sigma, 1.0, steps).delta(eps)
    textbook = norm.cdf(mu / 2 - eps / mu) - math.exp(eps) * norm.cdf(-mu / 2 - eps / mu)
    assert value.value == pytest.approx(textbook, rel=1e-6, abs=1e-13)
    assert full_batch(sigma, 1.0, steps).delta(eps).value == pytest.approx(value.value, rel=1e-12)


def test_reference_full_batch_value():
    assert full_batch(0.5, 0.01, 1000).epsilon(1e-6).value == pytest.approx(2.9216, abs=5e-5)


def test_nothing_leaks_without_steps_or_samples():
    for setting in ((1, 0.0, 10), (1, 0.5, 0), (0, 0.0, 10)):
        assert last_iterate(*setting).epsilon(1e-5).value == 0
        assert last_iterate(*setting).delta(0.0).value == 0


def test_no_noise():
    seen = 1 - 0.9**5
    mechanism = last_iterate(0.0, 0.1, 5)
    assert mechanism.delta(3.0).value == pytest.approx(seen, rel=1e-14)
    assert mechanism.delta(3.0).add == 0
    assert mechanism.delta(0.1).add == pytest.approx(1 - math.exp(0.1) * 0.9**5, rel=1e-12)
    assert mechanism.epsilon(0.9 * seen).value == math.inf
    assert mechanism.epsilon(1.1 * seen).value == 0


def test_envelope_covers_every_shorter_run():
    mechanism = last_iterate(0.3, 0.01, 16)
    top = max(last_iterate(0.3, 0.01, t).epsilon(1e-3).value for t in range(1, 17))
    value = mechanism.envelope(1e-3)
    assert value.value == pytest.approx(top, abs=1e-4)
    assert value.lower <= top <= value.upper
    assert value.value == pytest.approx(4.39946, abs=1e-4)
    assert mechanism.epsilon(1e-3).value == pytest.approx(0.90736, abs=6e-6)


def test_a_heuristic_never_becomes_a_bare_number():
    value = last_iterate(1, 0.1, 10).epsilon(1e-5)
    assert value.kind == "heuristic"
    assert HONESTY in repr(value)
    with pytest.raises(TypeError, match="not a DP guarantee"):
        float(value)
    with pytest.raises(TypeError, match="not a DP guarantee"):
        np.asarray(last_iterate(1, 0.1, 10).profile(np.array([0.0, 1.0])))
    assert float(gaussian(1.0).epsilon(1e-5)) > 0


@settings(max_examples=15)
@given(sigma=st.floats(0.3, 3), q=st.floats(0.02, 0.9), steps=st.integers(1, 50))
def test_tradeoff_touches_the_profile(sigma, q, steps):
    """At every eps the best test has delta = 1 - fnr - e^eps fpr for its own fpr, and no other has more."""
    mechanism = last_iterate(sigma, q, steps)
    fpr = np.linspace(0.001, 0.999, 200)
    fnr = mechanism.tradeoff(fpr).value
    for eps in (0.0, 0.5, 2.0):
        best = float(np.max(1 - fnr - math.exp(eps) * fpr))
        remove = mechanism.delta(eps).remove
        assert best <= remove + 1e-9
        if eps == 0:
            assert best >= remove - 0.01


class TestWeights:
    SETTING = (1.0, 0.05, 200)

    @pytest.mark.parametrize(
        ("weights", "low", "high"),
        [
            (np.ones(200), 3.3952, 3.4265),
            (0.5 ** np.arange(200)[::-1], 1.00565, 1.00745),
            (0.9 ** np.arange(200)[::-1], 1.28414, 1.29010),
            (0.98 ** np.arange(200)[::-1], 2.40138, 2.40833),
            ((1 + np.cos(np.pi * np.arange(200) / 200)) / 2, 2.7894, 2.8186),
            (1 - 0.9 ** (200 - np.arange(200)), 3.3574, 3.3885),
        ],
    )
    def test_bounds_meet_those_computed_elsewhere(self, weights, low, high):
        value = last_iterate(*self.SETTING, weights=weights).epsilon(1e-5)
        assert value.lower <= high
        assert value.upper >= low
        assert value.upper - value.lower <= 1e-2

    def test_six_steps_by_enumeration(self):
        """64 subsets of steps, each a shift: the mixture by brute force."""
        a = 0.5 ** np.arange(6)[::-1]
        sigma, q = 0.7, 0.05
        s = sigma * math.sqrt(float(a @ a))
        bits = (np.arange(64)[:, None] >> np.arange(6)) & 1
        shifts = bits @ a
        w = np.prod(np.where(bits, q, 1 - q), axis=1)

        def remove(eps):
            y = np.linspace(-8 * s, a.sum() + 8 * s, 40001)
            p = (w * norm.pdf(y[:, None], shifts, s)).sum(axis=1)
            ratio = np.maximum(p - math.exp(eps) * norm.pdf(y, 0, s), 0)
            return float(trapezoid(ratio, y))

        value = last_iterate(sigma, q, 6, weights=a).epsilon(1e-5)
        assert remove(value.upper + 1e-4) < 1e-5 < remove(value.lower - 1e-4)
        assert value.lower - 1e-4 <= 2.44203 <= value.upper + 1e-4

    def test_equal_weights_are_the_plain_heuristic(self):
        plain = last_iterate(1, 0.1, 30).epsilon(1e-6)
        assert last_iterate(1, 0.1, 30, weights=[3.0] * 30).epsilon(1e-6).value == plain.value
        assert last_iterate([1] * 30, [0.1] * 30, 30).epsilon(1e-6).value == plain.value

    def test_rates_that_change_are_a_sum_of_binomials(self):
        value = last_iterate(1.0, [0.1] * 4 + [0.5] * 3, 7).delta(1.0)
        one, two = (
            np.array([math.comb(n, k) * q**k * (1 - q) ** (n - k) for k in range(n + 1)])
            for n, q in ((4, 0.1), (3, 0.5))
        )
        w, s = np.convolve(one, two), math.sqrt(7)
        k = np.arange(8)
        y = np.linspace(-9 * s, 7 + 9 * s, 40001)
        p = (w * norm.pdf(y[:, None], k, s)).sum(axis=1)
        q = norm.pdf(y, 0, s)
        remove = trapezoid(np.maximum(p - math.e * q, 0), y)
        add = trapezoid(np.maximum(q - math.e * p, 0), y)
        assert value.remove == pytest.approx(remove, rel=1e-7)
        assert value.add == pytest.approx(add, rel=1e-7)

    def test_both_signs_give_an_upper_bound_only(self):
        value = last_iterate(1, 0.2, 4, weights=[1.0, -0.5, 0.25, 1.0]).epsilon(1e-5)
        positive = last_iterate(1, 0.2, 4, weights=[1.0, 0.5, 0.25, 1.0]).epsilon(1e-5)
        assert value.lower == 0
        assert value.upper >= positive.lower
        assert "both signs" in value.note

    def test_a_last_step_alone_is_one_step(self):
        weights = np.zeros(16)
        weights[-1] = 1
        alone = last_iterate(0.3, 0.01, 1).epsilon(1e-3).value
        value = last_iterate(0.3, 0.01, 16, weights=weights).epsilon(1e-3)
        assert value.value == pytest.approx(alone, rel=1e-9)


class TestOptimizers:
    """The impulse response of torch's own optimisers against the closed forms."""

    def weights(self, steps=12, scheduler=None, **settings):
        import torch

        parameter = torch.nn.Parameter(torch.zeros(3))
        optimizer = torch.optim.SGD([parameter], **settings)
        clock = None if scheduler is None else scheduler(optimizer)
        values = LinearWeights.from_optimizer(optimizer, steps, clock).values
        assert not optimizer.state
        assert parameter.abs().sum() == 0
        return values / values[-1]

    def test_momentum(self):
        beta, t = 0.9, np.arange(1, 13)
        expected = (1 - beta ** (12 - t + 1)) / (1 - beta)
        np.testing.assert_allclose(self.weights(lr=0.1, momentum=beta), expected, rtol=1e-12)

    def test_weight_decay(self):
        expected = (1 - 0.1 * 0.3) ** np.arange(12)[::-1]
        np.testing.assert_allclose(self.weights(lr=0.1, weight_decay=0.3), expected, rtol=1e-12)

    def test_schedule_and_decay_multiply(self):
        import torch

        rates = 0.5 * 0.8 ** np.arange(12)
        got = self.weights(
            lr=0.5,
            weight_decay=0.2,
            scheduler=lambda o: torch.optim.lr_scheduler.ExponentialLR(o, 0.8),
        )
        later = np.array([np.prod(1 - 0.2 * rates[t + 1 :]) for t in range(12)])
        np.testing.assert_allclose(got, rates * later / rates[-1], rtol=1e-12)

    @pytest.mark.parametrize("nesterov", [False, True])
    def test_momentum_with_decay_by_its_recursion(self, nesterov):
        lr, beta, decay = 0.3, 0.8, 0.5
        ends = []
        for t in range(12):
            x = buffer = 0.0
            for u in range(12):
                g = float(u == t) + decay * x
                buffer = g if u == 0 else beta * buffer + g
                x -= lr * (g + beta * buffer if nesterov else buffer)
            ends.append(-x)
        got = self.weights(lr=lr, momentum=beta, weight_decay=decay, nesterov=nesterov)
        np.testing.assert_allclose(got, np.array(ends) / ends[-1], rtol=1e-9)

    def test_moving_average(self):
        import torch

        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
        got = LinearWeights.from_optimizer(optimizer, 5, average=0.9).values
        # x_u = sum of impulses up to u; the average of the last is 1 - 0.9^(remaining steps).
        np.testing.assert_allclose(got, 1 - 0.9 ** np.arange(5, 0, -1), rtol=1e-12)

    @pytest.mark.parametrize("name", ["Adam", "Adagrad", "RMSprop"])
    def test_adaptive_methods_are_refused(self, name):
        import torch

        optimizer = getattr(torch.optim, name)([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
        with pytest.raises(ValueError, match=f"linear in the gradients, got {name}"):
            LinearWeights.from_optimizer(optimizer, 5)


class TestShuffled:
    def test_epochs_are_gaussian(self):
        value = last_iterate(2.0, 0.1, 30, sampling="shuffled").epsilon(1e-5)
        assert value.value == pytest.approx(
            gaussian(3 / (2 * math.sqrt(30))).epsilon(1e-5).value, rel=1e-12
        )
        assert "shuffled" in value.note

    def test_part_of_an_epoch_is_refused(self):
        with pytest.raises(ValueError, match="whole number of epochs"):
            last_iterate(1.0, 0.1, 25, sampling="shuffled")

    def test_replace_one_is_refused(self, unchecked):
        with pytest.raises(ValueError, match="replace-one"):
            last_iterate(1.0, 0.1, 10, sampling="replace")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((-1, 0.1, 10), "noise_multiplier must be at least 0 and finite, got -1"),
        ((math.nan, 0.1, 10), "noise_multiplier must be a number .*, got nan"),
        ((1, 1.5, 10), "sample_rate must be between 0 and 1, got 1.5"),
        ((1, 0.1, 2.5), "steps must be a whole number.*, got 2.5"),
        ((1, 0.1, -3), "steps must be a whole number .*, got -3"),
        (("1", 0.1, 3), "noise_multiplier must be a number .*, got '1'"),
    ],
)
def test_bad_arguments(arguments, message, unchecked):
    with pytest.raises(ValueError, match=message):
        last_iterate(*arguments)


@pytest.mark.parametrize("delta", [0, 1, -1, math.nan, 2.0, 1e-301])
def test_bad_delta(delta):
    with pytest.raises(ValueError, match=f"delta must .*{delta}".replace("+", r"\+")):
        last_iterate(1, 0.1, 10).epsilon(delta)


@pytest.mark.parametrize("eps", [-1e-9, math.nan, math.inf])
def test_bad_eps(eps):
    with pytest.raises(ValueError, match="eps must"):
        last_iterate(1, 0.1, 10).delta(eps)
