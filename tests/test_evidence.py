"""The statistics behind a verdict: closed forms, independent implementations, properties."""

import itertools
import math
import re

import hypothesis.extra.numpy as hnp
import jaxtyping
import mpmath
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import stats

from surefoot._verdict.betting import (
    BETS,
    fortunes,
    gains_above,
    gains_below,
    least_ratio,
    seeds_needed,
    spread,
)
from surefoot._verdict.evidence import checked_steps, judge
from surefoot._verdict.student import exceeds, limit, skewness
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
    assert judge(noisy(mean=1.8)).verdict is Verdict.BROKEN
    assert judge(noisy(mean=1.5), sense="lower").verdict is Verdict.KEPT
    at = noisy(mean=1.0, sd=0.01)
    assert judge(at, sense="equal", tolerance=0.1).verdict is Verdict.KEPT
    assert judge(noisy(mean=2.2), sense="equal", tolerance=0.1).verdict is Verdict.BROKEN
    assert judge(at, sense="equal", tolerance=0.001).verdict is Verdict.UNDECIDED


@pytest.mark.parametrize(
    ("mean", "sense", "assumed"),
    [
        (1.2, "upper", "no rare low values"),
        (0.5, "lower", "no heavy right tail"),
        (0.5, "equal", "no heavy right tail"),
        (1.2, "equal", "no rare low values"),
    ],
)
def test_what_only_a_light_tail_would_prove_is_suspect(mean, sense, assumed):
    found = judge(noisy(mean=mean), sense=sense, tolerance=0.1 if sense == "equal" else 1e-9)
    assert found.verdict is Verdict.UNDECIDED
    assert found.reason.startswith("suspect: ")
    told = judge(
        noisy(mean=mean),
        sense=sense,
        tolerance=0.1 if sense == "equal" else 1e-9,
        law="light-tailed",
    )
    assert told.verdict is Verdict.BROKEN
    assert f"assuming {assumed}, seeds fixed beforehand" in told.reason
    # Where seeds are added until it is decided the number was not fixed.
    adding = judge(
        noisy(mean=mean), sense=sense, tolerance=0.1 if sense == "equal" else 1e-9,
        law="light-tailed", look=2,
    )  # fmt: skip
    assert adding.verdict is Verdict.UNDECIDED


def test_a_right_skewed_sample_shows_nothing_below():
    x = 0.2 * np.random.default_rng(0).lognormal(0, 1, (12, 1))
    assert skewness(x)[0] > 1
    assert limit(x, 0.01, +1)[0] < 1
    found = judge(x, sense="lower", law="light-tailed")
    assert found.verdict is Verdict.UNDECIDED
    assert "suspect" not in found.reason
    # With the range known it is no matter of skewness.
    top = np.full(1, 1.5)
    assert judge(x, sense="lower", top=top).verdict is Verdict.BROKEN


def test_adding_seeds_does_not_unsay_what_was_broken():
    x = noisy(n=40, mean=1.6, sd=0.3, seed=3)
    first = next(n for n in range(5, 41) if judge(x[:n]).verdict is Verdict.BROKEN)
    then = np.concatenate([x[:first], np.full((60, 16), 0.9) + 0.01 * noisy(n=60, seed=4)])
    assert judge(then).verdict is Verdict.BROKEN


@given(enough, st.sampled_from(SENSES), st.randoms(use_true_random=False))
def test_the_order_of_the_seeds_matters_for_bets_alone(x, sense, random):
    order = list(range(len(x)))
    random.shuffle(order)
    one, two = judge(x, sense=sense, tolerance=0.1), judge(x[order], sense=sense, tolerance=0.1)
    if Verdict.BROKEN in (one.verdict, two.verdict):
        return
    assert one.verdict is two.verdict
    assert one.more_seeds == two.more_seeds
    if two.carrier is not None:
        assert order[two.carrier] == one.carrier


@given(enough)
def test_mirror(x):
    for level in (0.01, 0.1):
        one = exceeds(x, level, +1, 1e-9, math.inf)
        assert one == exceeds(2 - x, level, -1, 1e-9, math.inf)
    one, two = judge(x, sense="upper"), judge(2 - x, sense="lower")
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
    assert exceeds(x, 0.01, +1, 1e-9, math.inf)
    assert exceeds(2 - x, 0.01, -1, 1e-9, math.inf)
    # A violation in an eighth of the steps only, which only their window shows.
    x, noise = noisy(mean=0.2), noisy(steps=1, mean=0, sd=0.3)[:, 0]
    x[:, 4], x[:, 5] = 1.3 + noise, 1.3 - 0.9 * noise
    assert (limit(x, 0.01 / (4 * 16), -1) < 1).all()
    assert exceeds(x, 0.01, +1, 1e-9, math.inf)


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


def fortune_of(gains):
    """The purses of a bettor seed after seed: products, stake spread evenly over the bets."""
    return sum(np.cumprod(1 + b * np.asarray(gains), axis=0) for b in BETS) / len(BETS)


def by_the_rule(x, sense, tolerance, top, law):
    """The verdict for noisy steps, in plain loops."""
    sides = {"upper": [1], "lower": [-1], "equal": [1, -1]}[sense]
    alpha = 0.01 / len(sides)
    steps = x.shape[1]

    def up(s):
        return fortune_of(x / (1 + s * tolerance) - 1)

    def down(s):
        edge = 1 + s * tolerance
        return fortune_of((1 - x / edge) / (top / edge - 1))

    for s in sides:
        if s < 0 and top is None:
            continue
        history = up(s) if s > 0 else down(s)
        if history.mean(axis=1).max() >= 1 / alpha:
            return Verdict.BROKEN
    suspect = False
    for s in sides:
        for y, share in means_that_are_tested(x):
            skewed = s < 0 and skewness(y) > 1
            suspect |= s * (limit(y, alpha * share, -s) - 1) > tolerance and not skewed
    if suspect:
        return Verdict.BROKEN if law else Verdict.UNDECIDED
    for s in sides:
        history = None if top is None else down(s) if s > 0 else up(s)
        for t in range(steps):
            if history is None:
                if s * (limit(x[:, t], alpha, s) - 1) > tolerance:
                    return Verdict.UNDECIDED
            elif history[:, t].max() < 1 / alpha:
                return Verdict.UNDECIDED
    return Verdict.KEPT


@pytest.mark.parametrize("sense", SENSES)
@pytest.mark.parametrize(
    "steps", [1, 15, 16, *(pytest.param(t, marks=pytest.mark.acceptance) for t in (4, 32))]
)
@pytest.mark.parametrize(("ranged", "law"), [(False, None), (False, "light-tailed"), (True, None)])
def test_the_rule_written_out(sense, steps, ranged, law):
    rng = np.random.default_rng(steps)
    seen = set()
    for _ in range(60):
        n, tolerance = int(rng.integers(5, 160)), 0.2 if sense == "equal" else 1e-9
        sd = rng.choice([0.03, 0.3])
        # A shift of some steps, of all or of one, about as large as it takes to change the verdict.
        shift = rng.choice([-1, 1]) * 10 ** rng.uniform(-1.5, -0.1)
        shifted = np.arange(steps) < rng.choice([1, max(1, steps // 4), steps, steps])
        mean = (
            1 + np.roll(shift * shifted, rng.integers(steps)) + rng.choice([-1, 0, 1]) * tolerance
        )
        x = np.clip(mean + sd * rng.standard_normal((n, steps)), 0, 2)
        top = np.full(steps, 2.0) if ranged else None
        found = judge(x, sense=sense, tolerance=tolerance, top=top, law=law).verdict
        assert found is by_the_rule(x, sense, tolerance, top, law)
        seen.add(found)
    # Without a range and without a law nothing is called too low.
    assert seen >= {Verdict.KEPT, Verdict.UNDECIDED}
    assert (Verdict.BROKEN in seen) or (sense != "upper" and not ranged and law is None)


# Steps without spread


def test_a_common_start_is_compared_directly():
    x = noisy(mean=0.5)
    x[:, :2] = 1.0
    assert judge(x).verdict is Verdict.KEPT
    x[:, 1] = 1.0 + 1e-6
    found = judge(x)
    assert found.verdict is Verdict.UNDECIDED
    assert "suspect" in found.reason
    assert judge(x, law="light-tailed").verdict is Verdict.BROKEN
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
    assert found.more_seeds == 12


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
    x = noisy(n=8, steps=1, mean=0.9, sd=0.15, seed=1)
    found = judge(x)
    mean = x.mean()
    total = 8 * ((limit(x[:, 0], 0.01, 1) - mean) / (1 - mean)) ** 2
    assert mean < 1
    assert found.more_seeds == min(math.ceil(total) - 8, 8)
    assert f"about {math.ceil(total)} seeds in all would decide" in found.reason


def test_the_advice_never_more_than_doubles():
    found = judge(centred([0.99]))
    assert found.more_seeds == 8
    assert re.search(r"about \d{3,} seeds in all would decide; run 8 more", found.reason)


def test_following_the_advice_decides_with_few_seeds():
    rng = np.random.default_rng(0)
    used = []
    for mean in (0.8, 1.4):
        for _ in range(50):
            x = np.maximum(mean + 0.3 * rng.standard_normal((5, 1)), 0)
            while (found := judge(x)).verdict is Verdict.UNDECIDED and len(x) < 300:
                more = found.more_seeds or len(x)
                fresh = np.maximum(mean + 0.3 * rng.standard_normal((more, 1)), 0)
                x = np.concatenate([x, fresh])
            assert found.verdict is not (Verdict.BROKEN if mean < 1 else Verdict.KEPT)
            used.append(len(x))
    assert np.mean(used) < 60


def centred(mean):
    noise = noisy(n=8, steps=len(mean), mean=0, sd=0.4, seed=1)
    return noise - noise.mean(axis=0) + mean


def test_the_slowest_step_decides_what_may_be_kept():
    x = centred([0.2, 0.8, 0.9])
    mean, high = x.mean(axis=0), limit(x, 0.01, 1)
    need = np.ceil(8 * ((high - mean) / (1 - mean)) ** 2) - 8
    found = judge(x)
    assert found.verdict is Verdict.UNDECIDED
    assert found.more_seeds == 8 < need.max()
    assert f"about {8 + need.max():.0f} seeds in all would decide" in found.reason
    assert found.open_step == need.argmax()


def test_the_fastest_step_decides_what_may_be_broken():
    x = centred([0.9, 1.1, 1.2])
    found = judge(x)
    # By hand: the best bet's mean growth at each step, and the goal with its shares of the stake.
    growth = [max(np.log1p(b * (x[:, t] - 1)).mean() for b in BETS) for t in range(3)]
    need = [math.log(3 * len(BETS) / 0.01) / g if g > 0 else math.inf for g in growth]
    assert found.verdict is Verdict.UNDECIDED
    assert found.open_step == int(np.argmin(need[1:])) + 1
    assert found.more_seeds == 8
    assert f"about {math.ceil(min(need[1:]))} seeds in all would show it" in found.reason
    assert any("that do not exceed 1.78" in note for note in found.notes)  # .01^(-1/8)


def test_every_kept_says_what_would_go_unseen():
    # An event in a share p of the runs is missed by n seeds with probability (1 - p)^n = alpha.
    for n, percent in ((12, "32 %"), (459, "1 %")):
        found = judge(noisy(n=n))
        assert (1 - float(percent[:-2]) / 100) ** n == pytest.approx(0.01, rel=0.05)
        assert any(
            f"fewer than {percent} of the runs would go unseen" in note for note in found.notes
        )
    assert any("strong skew" in note for note in found.notes)
    assert "for a number of seeds fixed beforehand" in found.notes


@pytest.mark.parametrize("confidence", [0.9, 0.995])
def test_reasons_name_the_level(confidence):
    kept, broken = noisy(mean=0.5), noisy(mean=1.9)
    assert f"the {100 * confidence:g} % limit" in judge(kept, confidence=confidence).reason
    assert f"at confidence {confidence:g}" in judge(broken, confidence=confidence).reason


# Bets


def outcomes(values, probabilities, n):
    """Every record of n seeds at one step with its probability."""
    for picks in itertools.product(range(len(values)), repeat=n):
        yield np.array([[values[i]] for i in picks]), math.prod(probabilities[i] for i in picks)


@settings(max_examples=15)
@given(st.floats(1.1, 300), st.integers(1, 6))
def test_no_bet_gains_in_the_mean_and_a_fortune_is_rare_whenever_one_looks(top, n):
    law = [0.0, top], [1 - 1 / top, 1 / top]  # the mean is exactly 1
    tops = np.full((n, 1), top)
    for gains in (lambda x: gains_above(x, 1.0), lambda x: gains_below(x, 1.0, tops)):
        expectation = exceeding = 0.0
        for x, p in outcomes(*law, n):
            with np.errstate(over="ignore"):
                purse = np.exp(spread(fortunes(gains(x))))
            expectation += p * purse[-1]
            exceeding += p * (purse.max() >= 100)
        assert expectation == pytest.approx(1, rel=1e-9)
        assert exceeding <= 0.01


def test_a_stake_spread_over_dependent_steps_is_still_fair():
    # The second step is the first one again, or its opposite.
    expectation = 0.0
    for x, p in outcomes([0.0, 2.0], [0.5, 0.5], 8):
        both = np.concatenate([x, 2 - x], axis=1)
        expectation += p * np.exp(spread(fortunes(gains_above(both, 1.0))))[-1]
    assert expectation == pytest.approx(1, rel=1e-12)


def test_a_fortune_by_hand():
    x = np.array([[1.5, 0.5], [2.0, 0.0]])
    by_step = [
        np.mean([(1 + bet * 0.5) * (1 + bet * 1.0) for bet in BETS]),
        np.mean([(1 - bet * 0.5) * (1 - bet * 1.0) for bet in BETS]),
    ]
    assert np.exp(fortunes(gains_above(x, 1.0)))[-1] == pytest.approx(by_step)
    assert np.exp(spread(fortunes(gains_above(x, 1.0))))[-1] == pytest.approx(np.mean(by_step))
    # Below: at most 3 above 1, so a third of the distance.
    down = [np.mean([(1 + b * s * 0.5 / 3) * (1 + b * s * 1.0 / 3) for b in BETS]) for s in (-1, 1)]
    assert np.exp(fortunes(gains_below(x, 1.0, np.full((2, 2), 4.0))))[-1] == pytest.approx(down)


def test_seeds_needed_grows_as_the_mean_comes_near():
    x = np.full((10, 3), [1.0, 1.3, 2.0])
    need = seeds_needed(gains_above(x, 1.0), 0.01)
    by_hand = [math.log(4 / 0.01) / math.log1p(0.9 * gain) for gain in (0.3, 1.0)]
    assert need[0] == math.inf
    assert need[1:] == pytest.approx(by_hand)


@pytest.mark.parametrize(
    ("n", "ratio"), [(5, 2.51), (8, 1.78), (12, 1.47), (30, 1.17), (100, 1.05)]
)
def test_no_test_without_a_law_does_better(n, ratio):
    """x = c with probability 1/c, else 0: its mean is 1, and n seeds at c have probability c^-n = alpha."""
    found = least_ratio(n, 0.01)
    assert found == pytest.approx(ratio, abs=0.005)
    assert (1 / found) ** n == pytest.approx(0.01)


@pytest.mark.parametrize("share", [0.05, 0.2])
@pytest.mark.parametrize("n", [5, 12, 30])
def test_nearly_constant_but_zero_in_some_runs_is_not_broken(share, n):
    """What Student's limits called BROKEN in up to 99 % of studies: a bound that holds with equality."""
    rng = np.random.default_rng(n)
    called = 0
    for _ in range(100):
        jitter = 1 + 0.001 * rng.standard_normal((n, 4))
        x = np.where(rng.random((n, 1)) < share, 0.0, jitter / (1 - share))
        called += judge(x).verdict is Verdict.BROKEN
    assert called <= 4  # 1 % allowed: five of a hundred would have probability .3 %


def test_range_finds_a_violation_and_keeps_what_is_true():
    top = np.full(16, 2.0)
    assert judge(noisy(n=30, mean=1.6), top=top).verdict is Verdict.BROKEN
    assert judge(noisy(n=30, mean=0.4), top=top, sense="lower").verdict is Verdict.BROKEN
    kept = judge(noisy(n=30, mean=0.5), top=top)
    assert kept.verdict is Verdict.KEPT
    assert kept.notes == ("valid at whatever number of seeds one stops",)
    assert "for any law within the range" in kept.reason


def test_a_wide_range_leaves_room_for_a_rare_run():
    """Within by Student's limit; but one run in 1,000 at its start would break it, and none was seen."""
    x = noisy(n=12, mean=0.5, sd=0.01)
    assert judge(x).verdict is Verdict.KEPT
    found = judge(x, top=np.full(16, 1000.0))
    assert found.verdict is Verdict.UNDECIDED
    need = math.log(400) / max(np.log1p(b * (1 - x) / 999).mean(axis=0).min() for b in BETS)
    assert f"about {math.ceil(need)} seeds in all would decide" in found.reason


def test_where_the_bound_is_the_range_itself_there_is_nothing_to_ask():
    x = noisy(n=5, mean=0.5)
    assert judge(x, top=np.ones(16)).verdict is Verdict.KEPT
    # A common start at the bound, and a range that is the start.
    x = noisy(n=30, mean=0.5)
    x[:, 0] = 1.0
    assert judge(x, top=np.geomspace(1, 2, 16)).verdict is Verdict.KEPT


def test_a_range_a_seed_is_scaled_by_the_widest():
    """Runs that start apart have ranges of their own: bets of one scale, for a number of seeds fixed."""
    x = noisy(n=120, mean=0.5)
    apart = np.linspace(1.5, 6, 120)[:, None] * np.ones(16)
    kept = judge(x, top=apart)
    assert kept.verdict is Verdict.KEPT
    assert kept.notes == ("for a number of seeds fixed beforehand",)
    # The purse at the end counts then, not its best moment: some seeds gain, later ones lose it.
    fallen = np.concatenate([x, 1.4 + noisy(n=120, mean=0.0, sd=0.01)])
    assert judge(fallen, top=np.full(16, 6.0)).verdict is Verdict.KEPT
    apart = np.linspace(5.9, 6, 240)[:, None] * np.ones(16)
    assert judge(fallen, top=apart).verdict is Verdict.UNDECIDED


def test_narrow_ranges_do_not_outbid_wide_ones():
    """Half of the seeds at .6 with range 1.2, half at 1.5 with range 10: the mean is 1.05."""
    rng = np.random.default_rng(0)
    kept = 0
    for _ in range(50):
        low = rng.random((30, 1)) < 0.5
        x = np.where(low, 0.6, 1.5) + 0.01 * rng.standard_normal((30, 4))
        kept += judge(x, top=np.where(low, 1.2, 10.0) * np.ones(4)).verdict is Verdict.KEPT
    assert kept == 0


def test_a_run_outside_its_range():
    """Above it refutes the theorem in one run; below zero there is no range that could be meant."""
    x = noisy(n=30, mean=0.5)
    x[3, 4] = 2.1
    found = judge(x, top=np.full(16, 2.0))
    assert found.verdict is Verdict.BROKEN
    assert "2.1 times the bound, where the theorem allows no run more than 2 times" in found.reason
    assert (found.carrier, found.open_step) == (3, 4)
    x[3, 4] = -0.1
    found = judge(x, top=np.full(16, 2.0))
    assert found.verdict is Verdict.UNDECIDED
    assert "below 0, where its range begins" in found.reason


def test_values_below_zero_take_no_bets_at_their_step():
    x = noisy(n=30, mean=1.9, sd=0.1)
    x[:, 4] -= 2.5
    assert judge(x).verdict is Verdict.BROKEN
    everywhere = np.where(np.arange(30)[:, None] == 7, -0.5, x + 0.1)
    found = judge(everywhere[:, :4])
    assert found.verdict is Verdict.UNDECIDED
    assert "a value is below zero, and no test of a mean is fair without a range" in found.reason


def test_looks_share_the_error():
    """Over all looks the shares 1/(k (k + 1)) sum to 1; bets need none."""
    x = noisy(n=12, mean=0.93, sd=0.1, steps=1)
    assert judge(x).verdict is Verdict.KEPT
    later = judge(x, look=9)
    assert later.verdict is Verdict.UNDECIDED
    np.testing.assert_allclose(later.high, limit(x, 0.01 / 90, +1))
    assert "look 2 at a growing number" in judge(noisy(), look=2).notes[0]
    ranged = noisy(n=30, mean=0.5)
    top = np.full(16, 2.0)
    assert judge(ranged, top=top, look=9).verdict is judge(ranged, top=top).verdict is Verdict.KEPT


def test_shapes_are_checked_under_pytest():
    with pytest.raises(jaxtyping.TypeCheckError):
        judge(np.zeros(5))
