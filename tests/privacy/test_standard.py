"""The proven side: dp-accounting's numbers, its limits, and calibration to either value."""

import math

import numpy as np
import pytest

from surefoot.privacy import calibrate, epochs, gaussian, last_iterate, max_steps, standard

TABLE = [
    (0.5, 0.01, 1, 4.28542, 5.33666),
    (0.5, 0.01, 10, 5.52079, 6.77493),
    (0.5, 0.01, 1000, 15.48353, 17.55753),
    (1, 0.01, 1000, 2.12452, 2.43669),
    (1, 0.01, 10**5, 27.67277, 29.24662),
    (2, 0.1, 1000, 9.18199, 9.82126),
    (0.8, 0.001, 1000, 0.46769, 1.46188),
]


@pytest.mark.parametrize(("sigma", "q", "steps", "pld", "rdp"), TABLE)
def test_reference_table(sigma, q, steps, pld, rdp):
    assert standard(sigma, q, steps).epsilon(1e-6).value == pytest.approx(pld, abs=2e-4)
    # Other sets of Renyi orders differ by less than a percent.
    loose = standard(sigma, q, steps, method="rdp").epsilon(1e-6).value
    assert loose == pytest.approx(rdp, rel=1e-2)
    assert loose >= pld


@pytest.mark.parametrize("q", [0.01, 0.1, 0.3])
@pytest.mark.parametrize("sigma", [0.7, 2.0])
def test_one_step_is_the_heuristic(sigma, q):
    one = last_iterate(sigma, q, 1).epsilon(1e-6).value
    assert standard(sigma, q, 1).epsilon(1e-6).value == pytest.approx(one, abs=2e-4)


def test_every_example_in_every_batch_is_gaussian():
    mu = math.sqrt(10) / 3
    exact = gaussian(mu).epsilon(1e-5).value
    assert standard(3.0, 1.0, 10).epsilon(1e-5).value == pytest.approx(exact, abs=2e-4)


GRID = [
    (sigma, q, steps)
    for sigma in (0.5, 0.8, 1.0, 1.5, 2.0, 4.0)
    for q in (0.001, 0.005, 0.02, 0.08, 0.25)
    for steps in (1, 3, 10, 40, 150, 600, 2500)
]


@pytest.mark.acceptance
def test_the_heuristic_is_below_what_is_proven(measured):
    """Post-processing: linear losses publish less than all iterates do."""
    ratios = []
    for sigma, q, steps in GRID:
        proven = standard(sigma, q, steps).epsilon(1e-6).value
        plausible = last_iterate(sigma, q, steps).epsilon(1e-6)
        assert plausible.lower <= proven + 2e-4, (sigma, q, steps)
        ratios.append(proven / max(plausible.value, 1e-3))
    measured("8.6 settings, largest standard / heuristic", ">= 190", f"{len(GRID)}, {max(ratios)}")
    assert len(GRID) >= 190


def test_the_heuristic_is_below_what_is_proven_on_some():
    for sigma, q, steps in GRID[::30]:
        proven = standard(sigma, q, steps).epsilon(1e-6)
        assert last_iterate(sigma, q, steps).epsilon(1e-6).value <= proven.value + 2e-4
        assert proven.kind == "guarantee"
        assert 0 <= proven.lower <= proven.value == proven.upper


def test_steps_that_differ_are_composed():
    together = standard([1.0] * 50 + [2.0] * 50, 0.05, 100).epsilon(1e-5).value
    assert standard(2.0, 0.05, 100).epsilon(1e-5).value < together
    assert together < standard(1.0, 0.05, 100).epsilon(1e-5).value
    same = standard([1.0] * 100, [0.05] * 100, 100).epsilon(1e-5).value
    assert same == standard(1.0, 0.05, 100).epsilon(1e-5).value


@pytest.mark.parametrize("setting", [(0.01, 0.5, 1000), (0.05, 0.1, 10**5), (0.1, 0.5, 10**4)])
def test_a_huge_loss_ends_and_says_how(setting):
    value = standard(*setting).epsilon(1e-5)
    assert value.value > 1000
    assert "PLD on a grid" in value.note or "Renyi" in value.note


def test_nothing_and_everything():
    assert standard(1.0, 0.0, 100).epsilon(1e-5).value == 0
    assert standard(1.0, 0.1, 0).epsilon(1e-5).value == 0
    assert standard(0.0, 0.1, 5).epsilon(1e-5).value == math.inf
    assert standard(1e6, 1e-6, 1).epsilon(1e-5).value == 0


def test_tradeoff_is_below_the_heuristics():
    fpr = np.linspace(0, 1, 21)
    proven = standard(1.0, 0.1, 20).tradeoff(fpr).value
    plausible = last_iterate(1.0, 0.1, 20).tradeoff(fpr).value
    assert (proven <= plausible + 1e-3).all()
    assert (np.diff(proven) <= 1e-12).all()
    assert proven[0] == pytest.approx(1, abs=1e-6)


def test_epochs_of_shuffled_batches():
    assert epochs(1.0, 4).epsilon(1e-5).value == gaussian(2.0).epsilon(1e-5).value
    assert epochs(1.0, 4).kind == "guarantee"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((-1, 0.1, 10), "noise_multiplier .*got -1"),
        ((1, -0.1, 10), "sample_rate .*got -0.1"),
        ((1, 0.1, 2.5), "steps .*got 2.5"),
        (([1.0, 2.0], 0.1, 3), "noise_multiplier must be one number, or one per step: 3"),
    ],
)
def test_bad_arguments(arguments, message, unchecked):
    with pytest.raises(ValueError, match=message):
        standard(*arguments)


def test_bad_method(unchecked):
    with pytest.raises(ValueError, match="method must be one of .*got 'gdp'"):
        standard(1, 0.1, 10, method="gdp")


STUDY_B = [
    (1e-5, 0.08, 2000, 8, 2.18781, 2.2797, 8.4540),
    (1e-5, 0.01, 2000, 3, 0.66290, 0.9304, 7.3007),
    (1e-6, 0.005, 10000, 1, 2.13270, 2.2437, 1.0632),
]


class TestCalibration:
    @pytest.mark.parametrize(
        ("delta", "q", "steps", "target", "sigma", "sigma_proven", "proven"),
        [
            STUDY_B[2],
            *(pytest.param(*row, marks=pytest.mark.acceptance) for row in STUDY_B[:2]),
        ],
    )
    def test_both_ways(self, delta, q, steps, target, sigma, sigma_proven, proven):
        found = calibrate(target, delta, q, steps, by="heuristic")
        assert found.sigma == pytest.approx(sigma, abs=1e-5)
        assert found.heuristic_epsilon.value == pytest.approx(target, abs=1e-7)
        assert found.proven_epsilon.value == pytest.approx(proven, abs=2e-4)
        found = calibrate(target, delta, q, steps)
        assert found.sigma == pytest.approx(sigma_proven, abs=2e-4)
        assert target - 1e-3 <= found.proven_epsilon.value <= target

    @pytest.mark.parametrize("by", ["standard", "heuristic"])
    def test_the_proven_value_comes_first(self, by):
        found = calibrate(2.0, 1e-5, 0.5, 5, by=by)
        lines = repr(found).splitlines()
        assert lines[0].startswith("proven epsilon")
        assert f"{found.proven_epsilon.value:.6g}" in lines[0]
        assert "not a DP guarantee" in lines[1]
        assert next(iter(found.to_dict())) == "proven_epsilon"

    @pytest.mark.parametrize("target", [1e-3, 0.1, 30.0, 1e4])
    @pytest.mark.acceptance
    def test_far_targets(self, target):
        found = calibrate(target, 1e-5, 0.01, 100, by="heuristic")
        assert found.heuristic_epsilon.value == pytest.approx(target, rel=1e-7, abs=1e-7)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ((0.0, 1e-5, 0.1, 10), "target_epsilon must be positive and finite, got 0.0"),
            ((math.inf, 1e-5, 0.1, 10), "target_epsilon"),
            ((1.0, 0.0, 0.1, 10), "delta must be above 0"),
            ((1.0, 1e-5, 0.0, 10), "sample_rate must be positive"),
            ((1.0, 1e-5, 0.1, 0), "steps must be positive"),
        ],
    )
    def test_bad_arguments(self, arguments, message):
        with pytest.raises(ValueError, match=message):
            calibrate(*arguments)


class TestMaxSteps:
    @pytest.mark.acceptance
    def test_the_heuristic_keeps_a_target_on_an_interval_that_does_not_begin_at_one(self):
        found = max_steps(1.2, 1e-6, 0.5, 0.01, by="heuristic", limit=75)
        each = [last_iterate(0.5, 0.01, t).epsilon(1e-6).value <= 1.2 for t in range(1, 76)]
        kept = {t for a, b in found.intervals for t in range(a, b + 1)}
        assert kept == {t for t, ok in enumerate(each, 1) if ok}
        assert found.steps == 0
        assert len(found.intervals) == 1
        assert "not a DP guarantee" in repr(found)

    def test_standard_is_a_prefix(self):
        found = max_steps(1.0, 1e-6, 2.0, 0.05, limit=200)
        assert found.intervals == ((1, found.steps),)
        assert standard(2.0, 0.05, found.steps).epsilon(1e-6).value <= 1.0
        assert standard(2.0, 0.05, found.steps + 1).epsilon(1e-6).value > 1.0

    def test_limits(self):
        assert max_steps(1.0, 1e-5, 1.0, 0.0, limit=7).intervals == ((1, 7),)
        assert max_steps(1.0, 1e-5, 0.0, 0.1, limit=7).intervals == ()
        assert max_steps(1.0, 1e-2, 0.0, 1e-3, by="heuristic", limit=50).steps == 10

    def test_bad_limit(self):
        with pytest.raises(ValueError, match="limit must be at least 1, got 0"):
            max_steps(1.0, 1e-5, 1.0, 0.1, limit=0)
