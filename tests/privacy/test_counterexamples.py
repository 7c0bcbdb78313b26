"""Trainings in which the audit exceeds the heuristic; their mechanics by closed form and exact integers."""

import math

import numpy as np
import pytest
from scipy.stats import norm

from surefoot import Verdict
from surefoot.privacy import counterexamples as c
from surefoot.privacy import last_iterate

SHORT = (0.3, 0.01, 16, 1e-3)


class TestForgetting:
    def test_full_forgetting_keeps_the_last_step(self):
        made = c.forgetting(*SHORT, threshold=0.95, runs=20000)
        inside = made.scores(True, 100_000, np.random.default_rng(0))
        # Bernoulli(.01) + .3 N: the tail above .95 in closed form.
        tail = 0.99 * norm.sf(0.95 / 0.3) + 0.01 * norm.sf((0.95 - 1) / 0.3)
        assert (inside > 0.95).mean() == pytest.approx(tail, abs=5 * math.sqrt(tail / 100_000))

    def test_no_forgetting_is_the_pair_of_the_heuristic(self):
        made = c.forgetting(0.5, 0.3, 9, 1e-3, alpha=0.0, threshold=1.0)
        inside = made.scores(True, 200_000, np.random.default_rng(1))
        outside = made.scores(False, 200_000, np.random.default_rng(2))
        assert inside.mean() == pytest.approx(2.7, abs=0.02)
        assert inside.var() == pytest.approx(9 * (0.3 * 0.7 + 0.25), rel=0.02)
        assert outside.mean() == pytest.approx(0, abs=0.02)
        assert outside.var() == pytest.approx(9 * 0.25, rel=0.02)

    def test_partial_forgetting_decays_geometrically(self):
        made = c.forgetting(1e-6, 1.0, 5, 1e-3, alpha=0.5, threshold=1.0, runs=10)
        inside = made.scores(True, 10, np.random.default_rng(0))
        np.testing.assert_allclose(inside, sum(0.5**i for i in range(5)), atol=1e-4)

    def test_violates_the_heuristic_and_not_what_is_proven(self):
        result = c.forgetting(*SHORT, threshold=0.95, runs=200_000).run()
        assert result.finding == "heuristic violated"
        assert "verdict: heuristic violated" in str(result)
        assert result.exit_code == 0
        assert result.heuristic.value == pytest.approx(0.90736, abs=1e-5)
        assert result.proven.value == pytest.approx(9.221, abs=1e-3)
        # One step alone is the truth.
        assert result.lower_bound <= last_iterate(0.3, 0.01, 1).epsilon(1e-3).value
        proven, heuristic = result.certificates()
        assert proven.verdict is Verdict.KEPT
        assert heuristic.verdict is Verdict.BROKEN
        assert heuristic.label == "BROKEN (heuristic)"

    def test_the_control_stays_below(self):
        result = c.forgetting(*SHORT, alpha=0.0, threshold=3.763, runs=200_000).run()
        assert result.finding == "consistent"


class TestMaliciousData:
    def test_the_side_of_the_target_is_kept(self):
        made = c.malicious_data(0.01, 1.0, 8, 1e-3, others=50, target=0.95)
        inside = made.scores(True, 100, np.random.default_rng(0))
        outside = made.scores(False, 100, np.random.default_rng(0))
        # m_1 is 1 or 0 up to .01; then 50 unit gradients a step push it away from the target.
        np.testing.assert_allclose(inside, 1 + 7 * 51, atol=0.2)
        np.testing.assert_allclose(outside, -7 * 50, atol=0.2)

    def test_violates_the_heuristic(self):
        result = c.malicious_data(*SHORT, runs=200_000).run()
        assert result.finding == "heuristic violated"


class TestEncoding:
    def test_digits_return_what_was_written_exactly(self):
        made = c.encoding(0.4, 0.02, 16, 1e-3, threshold=4.0, runs=100)
        rng = np.random.default_rng(0)
        written = [np.rint(made._draw(True, 100, rng) / (0.4 / 64)) for _ in range(16)]
        m = made.last_iterate(written)
        assert isinstance(m[0], int)
        assert max(abs(v) for v in m) > 2**53
        for digit, x in zip(made.digits(m), reversed(written), strict=True):
            assert (digit == x).all()

    def test_plain_integers_step_by_step(self):
        made = c.encoding(0.4, 0.02, 4, 1e-3, threshold=4.0, runs=10)
        steps = [3, -1000, 1023, -7]
        m = 0
        for x in steps:
            m = 2048 * m + x
        found = made.last_iterate([np.array([float(x)]) for x in steps])
        assert found[0] == m
        assert [int(d[0]) for d in made.digits(found)] == steps[::-1]

    def test_score_is_the_log_likelihood_ratio(self):
        made = c.encoding(0.4, 0.02, 3, 1e-3, threshold=4.0, runs=10)
        seen = {}

        def draw(included, runs, rng):
            x = np.round(rng.standard_normal(runs) * 64) / 64 * 0.4
            seen.setdefault("x", []).append(x)
            return x

        object.__setattr__(made, "_draw", draw)
        score = made.scores(True, 5, np.random.default_rng(3))
        expected = sum(
            np.log(0.98 + 0.02 * norm.pdf(x, 1, 0.4) / norm.pdf(x, 0, 0.4)) for x in seen["x"]
        )
        np.testing.assert_allclose(score, expected, rtol=1e-9)

    def test_violates_the_heuristic(self):
        result = c.encoding(0.4, 0.02, 16, 1e-3, threshold=4.0, runs=10_000).run()
        assert result.finding == "heuristic violated"
        assert result.heuristic.value == pytest.approx(1.096, abs=1e-3)
        assert "float64 holds four steps" in str(result)


@pytest.mark.acceptance
@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: c.forgetting(*SHORT, threshold=0.95), 1.812),
        (lambda: c.forgetting(*SHORT, alpha=0.9, threshold=0.95), 1.827),
        (lambda: c.forgetting(*SHORT, alpha=0.5, threshold=1.1), 1.516),
        (lambda: c.malicious_data(*SHORT, others=500), 1.748),
        (lambda: c.malicious_data(*SHORT, others=2000), 1.876),
        (lambda: c.encoding(0.4, 0.02, 16, 1e-3, threshold=4.0, runs=10**5), 4.133),
        (lambda: c.forgetting(*SHORT, alpha=0.0, threshold=3.763), 0.813),
    ],
)
def test_full_size(make, expected, measured):
    result = make().run()
    measured(f"8.13 {type(make()).__name__}", expected, f"{result.lower_bound:.3f}")
    # Bounds of rare counts: another seed moves them by a tenth.
    assert result.lower_bound == pytest.approx(expected, abs=0.2)
    assert (result.lower_bound > result.heuristic.value) == (expected > 1)
    assert result.lower_bound < result.proven.value


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: c.forgetting(0, 0.1, 4, 1e-3, threshold=1), "noise_multiplier must be positive"),
        (lambda: c.forgetting(0.3, 1.1, 4, 1e-3, threshold=1), "sample_rate .*got 1.1"),
        (lambda: c.forgetting(0.3, 0.1, 0, 1e-3, threshold=1), "steps must be at least 1"),
        (lambda: c.forgetting(0.3, 0.1, 4, 0, threshold=1), "delta must be above 0"),
        (lambda: c.forgetting(0.3, 0.1, 4, 1e-3, threshold=1, alpha=2), "alpha .*got 2"),
        (lambda: c.forgetting(0.3, 0.1, 4, 1e-3, threshold=math.nan), "threshold"),
        (lambda: c.forgetting(0.3, 0.1, 4, 1e-3, threshold=1, runs=3), "runs .*got 3"),
        (lambda: c.malicious_data(0.3, 0.1, 4, 1e-3, others=0), "others .*got 0"),
        (lambda: c.encoding(0.3, 0.1, 4, 1e-3, threshold=1, base=256), "base .*got 256"),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()
