"""Whatever is a valid setting gets an answer, or a ValueError that names an argument: never a raw error."""

import math
import warnings

import numpy as np
import pytest

from surefoot.privacy import Value, calibrate, last_iterate, max_steps, standard

CALLS = ("last_iterate", "standard", "rdp", "calibrate", "max_steps")
# Of 2,500 settings each: what costs most is called least.
SHARES = (0.82, 0.1, 0.06, 0.01, 0.01)
FEW = (0.94, 0.03, 0.02, 0.01, 0.0)
NAMED = ("delta must be below", "target_epsilon needs a noise multiplier above")


def setting(rng, most_steps):
    """sigma, q, T, delta, eps: half of them where epsilon is of order 1."""
    steps = int(10 ** rng.uniform(0, most_steps))
    q = [10 ** rng.uniform(-9, 0), 1 - 10 ** rng.uniform(-9, -0.1), 1.0][
        rng.choice(3, p=[0.8, 0.15, 0.05])
    ]
    sigma = 10 ** rng.uniform(-3, 6)
    if rng.random() < 0.5:
        sigma = max(0.03, q * math.sqrt(steps) * 10 ** rng.uniform(-1.5, 1.5))
    delta = 10 ** rng.uniform(-300, -0.01) if rng.random() < 0.1 else 10 ** rng.uniform(-18, -0.01)
    eps = 0.0 if rng.random() < 0.1 else 10 ** rng.uniform(-9, 4)
    return float(sigma), float(q), steps, float(delta), float(eps)


def ask(call, sigma, q, steps, delta, eps):
    """All answers of one call, as bounds in order."""
    if call in ("last_iterate", "standard", "rdp"):
        curve = {
            "last_iterate": lambda: last_iterate(sigma, q, steps),
            "standard": lambda: standard(sigma, q, steps),
            "rdp": lambda: standard(sigma, q, steps, method="rdp"),
        }[call]()
        return [curve.delta(eps), curve.epsilon(delta)]
    target = max(eps, 1e-3)
    if call == "calibrate":
        found = calibrate(target, delta, q, steps)
        assert found.proven_epsilon.value <= target
        return [found.proven_epsilon, found.heuristic_epsilon]
    found = max_steps(target, delta, sigma, q, limit=min(steps, 10**5))
    assert 0 <= found.steps <= found.limit
    return []


def answers(seed, number, most_steps=9.0, shares=SHARES):
    """Raw errors and answers that cannot be, over random settings; numpy's warnings are errors too."""
    rng, wrong, calls = np.random.default_rng(seed), [], 0
    for _ in range(number):
        call = CALLS[rng.choice(len(CALLS), p=shares)]
        given = setting(rng, most_steps)
        calls += 1
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                values = ask(call, *given)
        except ValueError as error:
            if not str(error).startswith(NAMED):
                wrong.append((call, given, repr(error)))
        except Exception as error:
            wrong.append((call, given, repr(error)))
        else:
            for value in values:
                assert isinstance(value, Value)
                if not 0 <= value.lower <= value.value <= value.upper:
                    wrong.append((call, given, value))
    assert calls == number
    return wrong


@pytest.mark.acceptance
def test_a_hundred():
    assert answers(0, 100, most_steps=4.0, shares=FEW) == []


@pytest.mark.acceptance
@pytest.mark.parametrize("seed", [1, 2, 3, 4])
def test_ten_thousand(seed, measured):
    wrong = answers(seed, 2500)
    measured(f"14.2 seed {seed}: raw errors in 2,500 valid settings", "0", len(wrong))
    assert wrong == []


def test_a_probability_that_rounds_above_one():
    """delta is 1 up to rounding: 167 of 3,000 random settings raised."""
    value = last_iterate(0.308, 0.9, 600).delta(0.0)
    assert value.lower <= value.value <= value.upper == 1


def test_a_loss_so_large_that_renyi_bounds_delta_by_more_than_one():
    """Found by the random settings: the logarithm of that bound was taken for that of a probability."""
    assert standard(0.0738, 0.075, 8 * 10**8).delta(0.0759).value == 1


class TestCalibrate:
    @pytest.mark.parametrize(
        ("delta", "q", "steps"), [(1e-5, 1e-5, 1), (0.01, 0.01, 1), (1e-3, 1e-6, 10)]
    )
    @pytest.mark.parametrize("by", ["standard", "heuristic"])
    def test_no_noise_is_needed(self, delta, q, steps, by):
        with pytest.raises(ValueError, match=r"delta must be below .*any noise would do"):
            calibrate(1.0, delta, q, steps, by=by)

    @pytest.mark.acceptance
    def test_just_above_the_chance_of_a_draw(self):
        found = calibrate(8.0, 1e-3, 1.001e-3, 1)
        assert found.proven_epsilon.value <= 8.0
        assert 0.01 < found.sigma < 0.3

    @pytest.mark.acceptance
    def test_delta_as_large_as_the_rate(self):
        """Took 41 s; the noise is small and the loss of one draw large."""
        found = calibrate(8, 1e-3, 1e-3, 10, "standard")
        assert 8 - 1e-3 <= found.proven_epsilon.value <= 8
        assert found.sigma == pytest.approx(0.2233, abs=2e-3)

    @pytest.mark.acceptance
    def test_a_million_steps_of_a_small_rate(self, measured):
        """The root finder's own words came out."""
        found = calibrate(0.05, 1e-6, 1e-5, 10**6)
        measured("14.2 calibrate(.05, 1e-6, 1e-5, 1e6)", "<= .05", found.proven_epsilon.value)
        assert 0.05 - 1e-3 <= found.proven_epsilon.value <= 0.05

    def test_the_noise_of_full_batches_is_that_of_a_gaussian(self):
        found = calibrate(1.0, 1e-5, 1.0, 100)
        assert found.proven_epsilon.value == pytest.approx(1.0, abs=1e-6)
        assert found.sigma == pytest.approx(calibrate(1.0, 1e-5, 1.0, 100, "heuristic").sigma)

    def test_more_noise_than_there_is(self):
        with pytest.raises(ValueError, match="target_epsilon needs a noise multiplier above 1e"):
            calibrate(1e-9, 1e-9, 1.0, 10**6)
