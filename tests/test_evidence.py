"""The statistics behind a verdict: closed forms, independent implementations, properties."""

import itertools
import math

import hypothesis.extra.numpy as hnp
import jaxtyping
import mpmath
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy import stats

from surefoot._verdict.evidence import BETS, checked_steps, e_value, judge, limit
from surefoot.guarantee import Verdict

SENSES = ("upper", "lower", "equal")

# Values with few digits: sums of them are exact, so that an order of summation cannot decide.
ratios = hnp.arrays(
    np.float64,
    hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=20),
    elements=st.floats(0, 4, width=16),
)
enough = ratios.filter(lambda x: x.shape[0] >= 5)


def noisy(n=12, steps=16, mean=0.5, sd=0.1, seed=0):
    return mean + sd * np.random.default_rng(seed).standard_normal((n, steps))


# The limit


@pytest.mark.parametrize("n", [5, 8, 12, 30])
@pytest.mark.parametrize("level", [0.01, 0.005, 0.01 / 56])
def test_limit_of_a_symmetric_sample_is_students(n, level):
    half = np.random.default_rng(n).standard_normal(n // 2)
    y = 3.0 + np.concatenate([half, -half, [0.0] * (n % 2)])
    low, high = stats.t.interval(1 - 2 * level, n - 1, y.mean(), stats.sem(y))
    np.testing.assert_allclose(limit(y, level, +1), high, rtol=1e-12)
    np.testing.assert_allclose(limit(y, level, -1), low, rtol=1e-12)


def student_quantile(p, df):
    """By inversion of the distribution function, which is an incomplete beta function."""

    def excess(t):
        return 1 - mpmath.betainc(df / 2, 0.5, 0, df / (df + t * t), regularized=True) / 2 - p

    return mpmath.findroot(excess, (1, 50), solver="illinois")


def johnson(sample, level, side):
    """Johnson's limit, term by term in 30 digits."""
    with mpmath.workdps(30):
        y = [mpmath.mpf(float(v)) for v in sample]
        n = len(y)
        m = sum(y) / n
        s = mpmath.sqrt(sum((v - m) ** 2 for v in y) / (n - 1))
        mu3 = sum((v - m) ** 3 for v in y) / n
        distance = student_quantile(1 - mpmath.mpf(level), n - 1) * s / mpmath.sqrt(n)
        shift = mu3 / (6 * s**2 * n) + mu3 * distance**2 / (3 * s**4)
        return float(m + side * distance + (shift if side * mu3 > 0 else 0))


@pytest.mark.parametrize("side", [-1, 1])
@pytest.mark.parametrize("n", [5, 12, 30])
@pytest.mark.parametrize("level", [0.01, 0.01 / 64])
def test_limit_agrees_with_johnson_term_by_term(n, level, side):
    for sample in np.random.default_rng(n).lognormal(size=(3, n)):
        for y in (sample, -sample):
            assert limit(y, level, side) == pytest.approx(johnson(y, level, side), rel=1e-9)


@given(enough, st.sampled_from([0.01, 0.001]), st.sampled_from([-1, 1]))
def test_limit_is_never_shorter_than_students(x, level, side):
    student = x.mean(0) + side * stats.t.ppf(1 - level, len(x) - 1) * stats.sem(x)
    assert (side * (limit(x, level, side) - student) >= -1e-12 * (1 + abs(student))).all()


@given(enough, st.floats(-200, 200).map(lambda e: 10.0**e))
def test_limit_scales_and_mirrors(x, factor):
    high = limit(x, 0.01, +1)
    np.testing.assert_allclose(limit(x * factor, 0.01, +1), high * factor, rtol=1e-9)
    np.testing.assert_allclose(limit(-x, 0.01, -1), -high, rtol=1e-12)


# Which steps are checked


@given(
    st.lists(st.integers(0, 10**7), min_size=1, max_size=300, unique=True).map(sorted),
    st.integers(2, 20),
)
@example([*range(50), 10**4, 10**7], 20)
def test_checked_steps_are_as_many_as_asked_and_hold_both_ends(steps, most):
    at = checked_steps(np.array(steps, dtype=float), most)
    assert len(at) == min(most, len(steps))
    assert (np.diff(at) > 0).all()
    assert at[0] == 0
    assert at[-1] == len(steps) - 1


def test_checked_steps_are_log_spaced():
    at = checked_steps(np.arange(1_000_000.0), 7)
    assert at.tolist() == [0, 9, 99, 999, 9_999, 99_999, 999_999]
    with pytest.raises(ValueError, match="at least 2 steps must be checked, got 1"):
        checked_steps(np.arange(5.0), 1)


# Verdicts


def test_plain_cases():
    far = noisy(mean=0.5)
    assert judge(far).verdict is Verdict.KEPT
    assert judge(far, sense="lower").verdict is Verdict.BROKEN
    above = noisy(mean=1.5)
    assert judge(above).verdict is Verdict.BROKEN
    assert judge(above, sense="lower").verdict is Verdict.KEPT
    at = noisy(mean=1.0, sd=0.01)
    assert judge(at, sense="equal", tolerance=0.1).verdict is Verdict.KEPT
    assert judge(far, sense="equal", tolerance=0.1).verdict is Verdict.BROKEN
    assert judge(above, sense="equal", tolerance=0.1).verdict is Verdict.BROKEN
    assert judge(at, sense="equal", tolerance=0.001).verdict is Verdict.UNDECIDED


@given(enough, st.sampled_from(SENSES), st.randoms(use_true_random=False))
def test_the_order_of_the_seeds_does_not_matter(x, sense, random):
    order = list(range(len(x)))
    random.shuffle(order)
    one, two = judge(x, sense=sense, tolerance=0.1), judge(x[order], sense=sense, tolerance=0.1)
    assert one.verdict is two.verdict
    assert one.more_seeds == two.more_seeds
    if two.carrier is not None:
        assert order[two.carrier] == one.carrier


@given(enough)
def test_mirror(x):
    one, two = judge(x, sense="upper"), judge(2 - x, sense="lower")
    assert one.verdict is two.verdict
    assert one.worst == two.worst
    np.testing.assert_allclose(one.low, 2 - two.high, atol=1e-9)
    np.testing.assert_allclose(one.high, 2 - two.low, atol=1e-9)


@given(enough, st.data())
def test_raising_measurements_never_turns_broken_into_kept(x, data):
    raised = x + data.draw(hnp.arrays(np.float64, x.shape, elements=st.floats(0, 4, width=16)))
    one, two = judge(x).verdict, judge(raised).verdict
    assert (one, two) != (Verdict.BROKEN, Verdict.KEPT)
    one, two = judge(x, sense="lower").verdict, judge(raised, sense="lower").verdict
    assert (one, two) != (Verdict.KEPT, Verdict.BROKEN)


@given(enough, st.sampled_from(SENSES))
def test_kept_and_broken_mean_what_they_say(x, sense):
    found = judge(x, sense=sense, tolerance=0.1)
    inside = {
        "upper": found.mean <= 1.1,
        "lower": found.mean >= 0.9,
        "equal": (found.mean >= 0.9 - 1e-12) & (found.mean <= 1.1 + 1e-12),
    }[sense]
    if found.verdict is Verdict.KEPT:
        assert inside.all()
    if found.verdict is Verdict.BROKEN:
        assert not inside.all()
        assert not inside[found.worst]


def test_windows_over_the_steps_find_what_no_single_step_shows():
    x = noisy(mean=1.15, sd=0.3)
    assert (limit(x, 0.01 / (4 * 16), -1) < 1).all()
    assert judge(x).verdict is Verdict.BROKEN
    assert judge(2 - x, sense="lower").verdict is Verdict.BROKEN
    # A violation in an eighth of the steps only, which only their window shows.
    x, noise = noisy(mean=0.2), noisy(steps=1, mean=0, sd=0.3)[:, 0]
    x[:, 4], x[:, 5] = 1.3 + noise, 1.3 - 0.9 * noise
    assert (limit(x, 0.01 / (4 * 16), -1) < 1).all()
    assert judge(x).verdict is Verdict.BROKEN


def means_that_are_tested(x):
    """(seeds' means over some steps, share of alpha): the rule, written out."""
    steps = x.shape[1]
    if steps < 16:
        return [(x[:, t], 1 / steps) for t in range(steps)]
    families = [(x.mean(axis=1), 1 / 2)]
    for parts in (2, 4, 8):
        edges = [round(k * steps / parts) for k in range(parts + 1)]
        families += [(x[:, a:b].mean(axis=1), 1 / 56) for a, b in itertools.pairwise(edges)]
    return families + [(x[:, t], 1 / (4 * steps)) for t in range(steps)]


def by_the_rule(x, sense, tolerance, top):
    """The verdict for noisy steps, in plain loops."""
    sides = {"upper": [1], "lower": [-1], "equal": [1, -1]}[sense]
    alpha = 0.01 / len(sides)
    for s in sides:
        if top is None:
            for y, share in means_that_are_tested(x):
                if s * (limit(y, alpha * share, -s) - 1) > tolerance:
                    return Verdict.BROKEN
        else:
            edge = 1 + s * tolerance
            if e_value(x / edge, "upper" if s > 0 else "lower", top / edge) >= 1 / alpha:
                return Verdict.BROKEN
    for s in sides:
        for t in range(x.shape[1]):
            if s * (limit(x[:, t], alpha, s) - 1) > tolerance:
                return Verdict.UNDECIDED
    return Verdict.KEPT


@pytest.mark.parametrize("sense", SENSES)
@pytest.mark.parametrize("steps", [1, 4, 15, 16, 32])
@pytest.mark.parametrize("ranged", [False, True])
def test_the_rule_written_out(sense, steps, ranged):
    rng = np.random.default_rng(steps)
    seen = set()
    for _ in range(200):
        n, tolerance = int(rng.integers(5, 40)), 0.2 if sense == "equal" else 1e-9
        sd = rng.choice([0.03, 0.3])
        # A shift of some steps, of all or of one, about as large as it takes to change the verdict.
        shift = rng.choice([-1, 1]) * 10 ** rng.uniform(-2.5, -0.1)
        shifted = np.arange(steps) < rng.choice([1, max(1, steps // 4), steps])
        mean = (
            1 + np.roll(shift * shifted, rng.integers(steps)) + rng.choice([-1, 0, 1]) * tolerance
        )
        x = np.clip(mean + sd * rng.standard_normal((n, steps)), 0, 2)
        top = np.full(steps, 2.0) if ranged else None
        found = judge(x, sense=sense, tolerance=tolerance, top=top).verdict
        assert found is by_the_rule(x, sense, tolerance, top)
        seen.add(found)
    assert seen == {Verdict.KEPT, Verdict.BROKEN, Verdict.UNDECIDED}


# Steps without spread


def test_a_common_start_is_compared_directly():
    x = noisy(mean=0.5)
    x[:, :2] = 1.0
    assert judge(x).verdict is Verdict.KEPT
    x[:, 1] = 1.0 + 1e-6
    assert judge(x).verdict is Verdict.BROKEN
    assert judge(x, tolerance=1e-5).verdict is Verdict.KEPT
    # Rounding among the seeds is no spread.
    x[:, 1] = 1.0 + 1e-10 * np.linspace(-1, 0.9, 12)
    assert judge(x, tolerance=0.0).verdict is Verdict.KEPT


def test_agreement_after_the_seeds_had_differed_is_undecided():
    x = noisy(mean=0.5)
    x[:, 9] = 0.0
    found = judge(x)
    assert found.verdict is Verdict.UNDECIDED
    assert found.open_step == 9
    assert "no rare event" in found.reason
    assert found.more_seeds is None


def test_runs_far_below_a_loose_bound_differ():
    # They differ by their own size, though by less than 1e-9 of the bound.
    assert judge(noisy(mean=0.5) * np.geomspace(1, 1e-30, 16)).verdict is Verdict.KEPT


@pytest.mark.parametrize("value", [0.0, 0.3, 2.0])
def test_no_spread_at_all_is_undecided(value):
    for sense in SENSES:
        found = judge(np.full((12, 16), value), sense=sense)
        assert found.verdict is Verdict.UNDECIDED
        assert "seeds change nothing" in found.reason


def test_all_runs_at_zero_after_a_while_do_not_divide_by_zero():
    x = noisy(mean=2.0)
    x[:, 5:] = 0.0
    assert judge(x, sense="lower").verdict is not Verdict.KEPT


# Too little to go by


@pytest.mark.parametrize("n", range(5))
def test_fewer_than_five_seeds(n):
    found = judge(noisy(n=n, mean=0.1))
    assert found.verdict is Verdict.UNDECIDED
    assert found.more_seeds == 5 - n
    assert f"at least 5 seeds, got {n}" in found.reason


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite(value):
    x = noisy(mean=1.5)
    x[3, 7] = value
    found = judge(x)
    assert found.verdict is Verdict.UNDECIDED
    assert (found.open_step, found.carrier) == (7, 3)
    assert "not finite" in found.reason
    x[4, 7] = -value
    assert judge(x).verdict is Verdict.UNDECIDED


@pytest.mark.parametrize("size", [1e100, 1e150, 1e300])
def test_diverged_runs_are_broken_without_overflow(size):
    x = noisy(mean=0.5)
    x[:, 10:] *= size
    assert judge(x).verdict is Verdict.BROKEN


def test_the_largest_numbers_there_are():
    x = np.finfo(float).max * np.random.default_rng(0).uniform(0.5, 1, (12, 16))
    assert judge(x).verdict is not Verdict.KEPT  # their sum is infinite


def test_a_seed_that_carries_the_mean_is_named():
    x = noisy(mean=0.1, sd=0.01)
    x[4, 11] = 5.0
    found = judge(x)
    assert found.verdict is Verdict.UNDECIDED
    assert (found.carrier, found.open_step, found.worst) == (4, 11, 11)
    assert "one seed carries over half of the sum" in found.reason
    x *= 1 / x[:, 11].sum() * 20  # the mean is 1.7, whoever carries it
    for share, carrier in ((0.51, 4), (0.49, None)):
        x[4, 11] = share / (1 - share) * (x[:, 11].sum() - x[4, 11])
        found = judge(x[:, 11:12])
        assert found.verdict is Verdict.UNDECIDED
        assert found.carrier == carrier
    # It is a reason that is shown, and no gate: where the limit lets the step through, it is KEPT.
    x = noisy(mean=0.1, sd=0.01)
    x[4, 11] = 1.0
    assert x[4, 11] > x[:, 11].sum() / 2 - 0.1
    assert judge(x).verdict is Verdict.KEPT


def test_more_seeds_by_the_formula():
    x = noisy(n=8, steps=1, mean=0.9, sd=0.3, seed=1)
    found = judge(x)
    mean = x.mean()
    total = 8 * ((limit(x[:, 0], 0.01, 1) - mean) / (1 - mean)) ** 2
    assert mean < 1
    assert found.more_seeds == math.ceil(total) - 8
    assert f"about {found.more_seeds} more seeds would decide" in found.reason


@pytest.mark.parametrize(("mean", "verdict"), [(0.85, Verdict.KEPT), (1.15, Verdict.BROKEN)])
def test_the_promised_number_of_seeds_usually_decides(mean, verdict):
    rng = np.random.default_rng(0)
    decided = []
    while len(decided) < 100:
        x = mean + 0.3 * rng.standard_normal((8, 1))
        more = judge(x).more_seeds
        # The estimate stands on the mean so far; where that is on the wrong side, so is the estimate.
        if more is None or (x.mean() - 1) * (mean - 1) <= 0:
            continue
        # More seeds with the mean that the first ones had, as the number assumes.
        fresh = rng.standard_normal((more, 1)) * x.std(ddof=1) + x.mean()
        decided.append(judge(np.concatenate([x, fresh])).verdict is verdict)
    assert np.mean(decided) > 0.5


def centred(mean):
    noise = noisy(n=8, steps=len(mean), mean=0, sd=0.4, seed=1)
    return noise - noise.mean(axis=0) + mean


def test_the_slowest_step_decides_what_may_be_kept():
    x = centred([0.2, 0.8, 0.9])
    mean, high = x.mean(axis=0), limit(x, 0.01, 1)
    need = np.ceil(8 * ((high - mean) / (1 - mean)) ** 2) - 8
    found = judge(x)
    assert found.verdict is Verdict.UNDECIDED
    assert found.more_seeds == need.max()
    assert found.open_step == need.argmax()


def test_the_fastest_step_decides_what_may_be_broken():
    x = centred([0.9, 1.1, 1.2])
    mean, low = x.mean(axis=0), limit(x, 0.01 / 3, -1)
    need = np.ceil(8 * ((mean - low) / (mean - 1)) ** 2) - 8
    found = judge(x)
    assert found.verdict is Verdict.UNDECIDED
    assert found.more_seeds == need[1:].min()
    assert found.open_step == 1 + need[1:].argmin()
    assert f"about {found.more_seeds} more seeds would show if by chance" in found.reason


def test_every_kept_says_what_would_go_unseen():
    # An event in a share p of the runs is missed by n seeds with probability (1 - p)^n = alpha.
    for n, percent in ((12, "32 %"), (459, "1 %")):
        found = judge(noisy(n=n))
        assert (1 - float(percent[:-2]) / 100) ** n == pytest.approx(0.01, rel=0.05)
        assert any(
            f"fewer than {percent} of the runs would go unseen" in note for note in found.notes
        )
    assert any("strong skew" in note for note in found.notes)


@pytest.mark.parametrize("confidence", [0.9, 0.995])
def test_reasons_name_the_level(confidence):
    kept, broken = noisy(mean=0.5), noisy(mean=1.5)
    assert f"the {100 * confidence:g} % limit" in judge(kept, confidence=confidence).reason
    assert f"at confidence {confidence:g}" in judge(broken, confidence=confidence).reason


# The betting e-value


def outcomes(values, probabilities, n):
    """Every record of n seeds at one step with its probability."""
    for picks in itertools.product(range(len(values)), repeat=n):
        yield np.array([[values[i]] for i in picks]), math.prod(probabilities[i] for i in picks)


@given(st.floats(1.1, 300), st.integers(1, 8))
def test_e_value_has_expectation_one_on_a_two_point_law(top, n):
    law = [0.0, top], [1 - 1 / top, 1 / top]
    for sense in ("upper", "lower"):
        expectation = exceeding = 0.0
        for x, p in outcomes(*law, n):
            e = e_value(x, sense, np.array([top]))
            expectation += p * e
            exceeding += p * (e >= 100)
        assert expectation == pytest.approx(1, rel=1e-9)
        assert exceeding <= 0.01


def test_e_value_of_dependent_steps_is_still_fair():
    # The second step is the first one again, or its opposite: the mean over steps stays fair.
    expectation = 0.0
    for x, p in outcomes([0.0, 2.0], [0.5, 0.5], 8):
        both = np.concatenate([x, 2 - x], axis=1)
        expectation += p * e_value(both, "upper", np.array([2.0, 2.0]))
    assert expectation == pytest.approx(1, rel=1e-12)


def test_e_value_by_hand():
    x = np.array([[1.5, 0.5], [2.0, 0.0]])
    by_step = [
        np.mean([(1 + bet * 0.5) * (1 + bet * 1.0) for bet in BETS]),
        np.mean([(1 - bet * 0.5) * (1 - bet * 1.0) for bet in BETS]),
    ]
    assert e_value(x, "upper", np.array([2.0, 2.0])) == pytest.approx(np.mean(by_step))


def test_range_finds_a_violation_and_keeps_what_is_true():
    top = np.full(16, 2.0)
    assert judge(noisy(n=30, mean=1.6), top=top).verdict is Verdict.BROKEN
    assert judge(noisy(n=30, mean=0.4), top=top, sense="lower").verdict is Verdict.BROKEN
    assert judge(noisy(n=30, mean=0.5), top=top).verdict is Verdict.KEPT


def test_range_respects_the_region_of_equivalence():
    top, inside = np.full(16, 2.0), noisy(n=100, mean=1.4, sd=0.05)
    assert judge(inside, top=top, sense="equal", tolerance=0.5).verdict is Verdict.KEPT
    assert judge(inside, top=top, sense="equal", tolerance=0.1).verdict is Verdict.BROKEN


@pytest.mark.parametrize("value", [-0.1, 2.1])
def test_values_outside_the_declared_range(value):
    x = noisy()
    x[0, 0] = value
    with pytest.raises(ValueError, match="must lie between 0 and c"):
        judge(x, top=np.full(16, 2.0))


def test_shapes_are_checked_under_pytest():
    with pytest.raises(jaxtyping.TypeCheckError):
        judge(np.zeros(5))
