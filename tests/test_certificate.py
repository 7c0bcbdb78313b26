"""Promise and run side by side: every verdict, every sense, the file on disk."""

import contextlib
import dataclasses
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from surefoot import Assumption, Certificate, Guarantee, Record, Verdict, certify
from surefoot._verdict.evidence import judge
from surefoot.certificate import FORMAT, PlotCurve, read_certificates, write_certificates
from surefoot.errors import FileFormatError, UnknownNameError

MIRROR = {"upper": "lower", "lower": "upper", "equal": "equal"}


def record_of(values, steps=None):
    """A record of the quantity "gap" with one row a seed."""
    record = Record()
    for seed, row in enumerate(np.atleast_2d(values)):
        record.extend(seed, "gap", row, steps)
    return record


def promise(bound, **changes):
    fields = {
        "name": "rate", "statement": "f(x_n) <= b_n", "source": "arXiv 0000.00000, Theorem 1",
        "quantity": "gap", "sense": "upper", "holds_in": "every run", "bound": lambda record: bound,
    }  # fmt: skip
    return Guarantee(**(fields | changes))


def condition(holds, measured=3.0, name="step size"):
    return Assumption(name, "lr <= 1 / L", measured, holds, "Lanczos")


def noisy(n=12, steps=16, mean=0.5, sd=0.1, seed=0):
    return mean + sd * np.random.default_rng(seed).standard_normal((n, steps))


def same(one, two):
    """Equal in every field, where NaN equals NaN."""
    return repr(dataclasses.astuple(one)) == repr(dataclasses.astuple(two))


# Claims on every run


@pytest.mark.parametrize("bound", [2.0, 0.0, -2.0, 1e-300, -1e300])
@pytest.mark.parametrize("sense", ["upper", "lower", "equal"])
def test_every_run_is_a_direct_comparison(sense, bound):
    far = abs(bound) + 1.0
    inside = {"upper": bound - far, "lower": bound + far, "equal": bound}[sense]
    outside = {"upper": bound + far, "lower": bound - far, "equal": bound + far}[sense]
    values = np.full((3, 5), inside)
    assert certify(record_of(values), promise(bound, sense=sense)).verdict is Verdict.KEPT
    values[1, 3] = outside
    found = certify(record_of(values, [0, 10, 20, 30, 40]), promise(bound, sense=sense))
    assert found.verdict is Verdict.BROKEN
    assert "seed 1 has gap = " in found.reason
    assert "at step 30" in found.reason
    assert "(1 of 15 comparisons fail)" in found.reason
    assert found.worst_step == 30


def test_one_violation_beyond_rounding_is_broken():
    bound = np.linspace(1, 2, 50)
    values = np.stack([bound] * 4)
    values[2, 31] *= 1 + 1e-10
    assert certify(record_of(values), promise(bound)).verdict is Verdict.KEPT
    values[2, 31] *= 1 + 1e-8
    assert certify(record_of(values), promise(bound)).verdict is Verdict.BROKEN
    loose = certify(record_of(values), promise(bound, tolerance=1e-7))
    assert loose.verdict is Verdict.KEPT
    assert certify(record_of(values), promise(bound, atol=1e-7)).verdict is Verdict.KEPT


@given(
    st.lists(st.floats(-10, 10, width=16), min_size=3, max_size=3),
    st.lists(st.floats(-10, 10, width=16), min_size=3, max_size=3),
    st.sampled_from(["upper", "lower", "equal"]),
)
def test_tightness_is_on_the_side_of_the_verdict(values, bound, sense):
    found = certify(record_of(values), promise(np.array(bound), sense=sense, tolerance=0.0))
    kept = {
        "upper": all(y <= b for y, b in zip(values, bound, strict=True)),
        "lower": all(y >= b for y, b in zip(values, bound, strict=True)),
        "equal": values == bound,
    }[sense]
    assert (found.verdict is Verdict.KEPT) == kept
    assert {
        "upper": found.tightness <= 1, "lower": found.tightness <= 1, "equal": found.tightness == 1,
    }[sense] == kept  # fmt: skip
    mirrored = promise(-np.array(bound), sense=MIRROR[sense], tolerance=0.0)
    assert certify(record_of(-np.array(values)), mirrored).verdict is found.verdict


@pytest.mark.parametrize(
    ("value", "bound", "sense", "verdict"),
    [
        (5.0, math.inf, "upper", Verdict.KEPT),
        (math.inf, math.inf, "upper", Verdict.KEPT),
        (math.inf, 5.0, "upper", Verdict.BROKEN),
        (5.0, -math.inf, "upper", Verdict.BROKEN),
        (5.0, math.inf, "lower", Verdict.BROKEN),
        (-math.inf, 5.0, "lower", Verdict.BROKEN),
        (5.0, math.inf, "equal", Verdict.BROKEN),
        (math.nan, 5.0, "upper", Verdict.UNDECIDED),
        (math.nan, 5.0, "equal", Verdict.UNDECIDED),
    ],
)
def test_values_and_bounds_that_are_not_finite(value, bound, sense, verdict):
    values = np.full((2, 4), 5.0 if math.isinf(bound) else bound)
    values[1, 2] = value
    curve = np.full(4, 5.0)
    curve[2] = bound
    found = certify(record_of(values), promise(curve, sense=sense))
    assert found.verdict is verdict
    if math.isnan(value):
        assert "gap is NaN at step 2 of seed 1" in found.reason


def test_a_nan_does_not_hide_a_violation():
    found = certify(record_of([[math.nan, 3.0]]), promise(1.0))
    assert found.verdict is Verdict.BROKEN
    assert "seed 0 has gap = 3 at step 1" in found.reason


def test_every_step_counts_though_few_are_listed():
    values = np.full((1, 5000), 0.5)
    values[0, 2222], values[0, 3333] = 1.25, 1.5
    found = certify(record_of(values), promise(1.0))
    assert found.verdict is Verdict.BROKEN
    assert "gap = 1.25 at step 2222" in found.reason
    assert (found.worst_step, found.tightness) == (3333, 1.5)
    assert {2222, 3333} <= set(found.checked)
    assert len(found.checked) <= 18
    # Who asks for few steps gets few.
    assert certify(record_of(values), promise(1.0), steps=4).verdict is Verdict.KEPT


# Claims on an expectation


@pytest.mark.parametrize("mean", [0.5, 0.95, 1.5])
@pytest.mark.parametrize("sense", ["upper", "lower", "equal"])
def test_an_expectation_is_judged_on_ratios(sense, mean):
    x, bound = noisy(mean=mean), np.geomspace(100, 0.01, 16)
    found = certify(
        record_of(x * bound), promise(bound, sense=sense, holds_in="expectation", tolerance=0.1)
    )
    expected = judge(x, sense=sense, tolerance=0.1)
    assert found.verdict is expected.verdict
    np.testing.assert_allclose(found.ratio, expected.mean, rtol=1e-12)
    np.testing.assert_allclose(found.low, expected.low, rtol=1e-12)
    np.testing.assert_allclose(found.high, expected.high, rtol=1e-12)
    assert found.checked == list(range(16))
    assert found.more_seeds == expected.more_seeds
    # The headline reads the other way for a lower bound, and leaves the first step out.
    shown = [1 / v for v in found.ratio] if sense == "lower" else found.ratio
    assert found.final == shown[-1]
    worst = max(shown[1:], key=lambda v: abs(v - 1)) if sense == "equal" else max(shown[1:])
    outside = abs(shown[0] - 1) if sense == "equal" else shown[0] - 1
    if outside > max(0.1, abs(worst - 1) if sense == "equal" else worst - 1):
        worst = shown[0]
    assert found.tightness == worst
    assert shown[found.worst_step] == found.tightness


@given(st.integers(-300, 300))
def test_units_do_not_matter(exponent):
    x, factor = noisy(mean=0.9, sd=0.3), 2.0**exponent
    one = certify(record_of(x), promise(1.0, holds_in="expectation"))
    two = certify(record_of(factor * x), promise(factor, holds_in="expectation"))
    assert (one.verdict, one.ratio, one.low, one.high, one.reason) == (
        two.verdict, two.ratio, two.low, two.high, two.reason,
    )  # fmt: skip


def test_planted_faults_in_a_claim_on_an_expectation():
    # Noisy descent on x^2 / 2: E x_n^2 = (1 - lr)^(2n) + lr^2 sigma^2 (1 - q^n) / (1 - q), q = (1 - lr)^2.
    lr, sigma, n = 0.3, 0.5, np.arange(40)
    q = (1 - lr) ** 2
    second_moment = q**n + lr**2 * sigma**2 * (1 - q**n) / (1 - q)

    def run(seed, lr=lr):
        rng, x, out = np.random.default_rng(seed), 1.0, []
        for _ in n:
            out.append(0.5 * x * x)
            x -= lr * (x + sigma * rng.standard_normal())
        return out

    true = promise(0.5 * second_moment, holds_in="expectation", sense="upper")
    good = record_of([run(s) for s in range(30)])
    assert certify(good, true).verdict in (Verdict.KEPT, Verdict.UNDECIDED)
    with_room = promise(1.5 * second_moment, holds_in="expectation")
    assert certify(good, with_room).verdict is Verdict.KEPT
    wrong_constant = promise(0.1 * second_moment, holds_in="expectation")
    assert certify(good, wrong_constant).verdict is Verdict.BROKEN
    wrong_step = record_of([run(s, lr=1.5) for s in range(30)])
    assert certify(wrong_step, with_room).verdict is Verdict.BROKEN


def test_undecided_names_step_and_seed():
    x = noisy(mean=0.1, sd=0.01)
    x[4, 11] = 5.0
    found = certify(
        record_of(x, np.arange(16) * 100), promise(1.0, holds_in="expectation"), expected=None
    )
    assert found.verdict is Verdict.UNDECIDED
    assert "one seed carries over half of the sum (step 1100, seed 4)" in found.reason
    assert found.more_seeds > 0
    assert str(found.more_seeds) in found.reason
    found = certify(record_of(x[:3]), promise(1.0, holds_in="expectation"))
    assert found.more_seeds == 2


def test_sixteen_of_many_steps_are_checked_on_an_expectation():
    x = noisy(steps=2000)
    found = certify(record_of(x), promise(1.0, holds_in="expectation"))
    assert len(found.checked) == 16
    assert (found.checked[0], found.checked[-1]) == (0, 1999)
    more = certify(record_of(x), promise(1.0, holds_in="expectation"), steps=200)
    assert len(more.checked) == 200


def test_declared_range_goes_into_the_verdict():
    bound, x = np.linspace(1, 0.5, 16), noisy(n=60, mean=0.55, sd=0.02)
    low = promise(bound, sense="lower", holds_in="expectation", value_range=(0.0, 1.0))
    assert certify(record_of(np.minimum(x * bound, 1.0)), low).verdict is Verdict.BROKEN
    above = certify(record_of(x * bound + 2), low)
    assert above.verdict is Verdict.BROKEN
    assert "a run is above its range" in above.reason
    # Seeds with bounds of their own: the largest ratio that each of them can have.
    bounds = np.linspace(0.5, 2, 60)[:, None]
    certify(record_of(np.ones((60, 16))), dataclasses.replace(low, bound=lambda record: bounds))


def test_a_range_may_be_a_curve_of_the_record():
    """A gap that never rises: each run's range ends at its own start."""
    starts = np.geomspace(1, 100, 40)[:, None]
    falls = starts * np.concatenate([np.ones((40, 1)), noisy(n=40, mean=0.3, sd=0.02)], axis=1)
    never_rises = promise(
        starts * np.concatenate([[1.0], np.full(16, 0.7)]),
        holds_in="expectation", value_range=lambda record: record["gap"][:, :1],
    )  # fmt: skip
    kept = certify(record_of(falls), never_rises)
    assert kept.verdict is Verdict.KEPT
    assert "valid at whatever number of seeds one stops" in kept.notes
    falls[7, 5] = 1.01 * falls[7, 0]
    risen = certify(record_of(falls), never_rises)
    assert risen.verdict is Verdict.BROKEN
    assert "(step 5, seed 7)" in risen.reason
    with pytest.raises(ValueError, match=r"value_range of 'rate' has shape \(3,\)"):
        certify(
            record_of(falls), dataclasses.replace(never_rises, value_range=lambda r: np.ones(3))
        )


# Rounding


@pytest.mark.parametrize("size", [1e-6, 1.0, 1e8])
@pytest.mark.parametrize(("dtype", "eps"), [("float64", 2.0**-52), ("float32", 2.0**-23)])
def test_a_few_eps_of_the_dtype_are_forgiven_and_no_more(size, dtype, eps):
    """A difference of two losses of a size, promised to be at most 0."""
    record = record_of([[0.0, 8 * eps * size]])
    record.note(dtype=dtype)
    falls = promise(0.0, size=size)
    found = certify(record, falls)
    assert found.verdict is Verdict.KEPT
    assert found.tightness == 1.0  # what rounding forgives is no ratio
    record = record_of([[0.0, 32 * eps * size]])
    record.note(dtype=dtype)
    assert certify(record, falls).verdict is Verdict.BROKEN


def test_the_precision_is_that_of_the_quantity():
    rise = 20 * 2.0**-23
    record = record_of([[1.0, 1.0 + rise]])
    assert certify(record, promise(1.0, tolerance=0.0)).verdict is Verdict.BROKEN
    # Nothing favourable is assumed of what was not recorded, nor of another run's precision.
    record.note(0, "other", dtype="float32")
    assert certify(record, promise(1.0, tolerance=0.0)).verdict is Verdict.BROKEN
    less = record_of([[1.0, 1.0 + rise / 2]])
    less.note(0, "mine", dtype="bfloat16")  # of 16 bits: quantities are computed in float32
    assert certify(less, promise(1.0, tolerance=0.0, of="mine")).verdict is Verdict.KEPT
    assert certify(record, promise(1.0, tolerance=0.0, of="mine")).verdict is Verdict.BROKEN
    own = record_of([[1.0, 1.0 + rise / 2]])
    own.note(**{"dtype": "float32", "dtype: gap": "float64"})
    assert certify(own, promise(1.0, tolerance=0.0)).verdict is Verdict.BROKEN


def test_a_mean_is_compared_to_rounding_too():
    """Bounds far below the rounding of what they are compared with are no evidence against it."""
    falls = noisy(n=12, mean=0.3, sd=0.02) * 0.01 ** np.arange(16.0)
    falls += np.abs(noisy(n=12, mean=0.0, sd=1e-17, seed=1))
    bound = 0.01 ** np.arange(16.0)
    far = promise(bound, holds_in="expectation", size=1.0)
    found = certify(record_of(falls), far)
    assert found.verdict is Verdict.KEPT
    assert any("steps at which both sides drown in rounding" in note for note in found.notes)
    assert found.checked[-1] == 7  # 1e-14 is the last bound above 16 eps
    assert certify(record_of(falls), dataclasses.replace(far, size=0.0)).verdict is Verdict.BROKEN


# Precedence, assumptions, vacuity


def test_not_promised_comes_first_and_names_every_failing_assumption():
    fails = promise(
        1.0,
        assumptions=lambda record: (
            condition(True, name="smooth"), condition(False), condition(np.False_, None, "convex"),
        ),
        trivial=0.5,
    )  # fmt: skip
    for values in ([[0.5]], [[9.0]]):
        found = certify(record_of(values), fails)
        assert found.verdict is Verdict.NOT_PROMISED
        assert found.reason == (
            "step size fails: requires lr <= 1 / L, measured 3; "
            "convex fails: requires lr <= 1 / L (Lanczos)"
        )


def test_broken_comes_before_vacuous_and_vacuous_before_kept():
    trivial = promise(1.0, trivial=0.8)
    assert certify(record_of([[9.0]]), trivial).verdict is Verdict.BROKEN
    found = certify(record_of([[0.5]]), trivial)
    assert found.verdict is Verdict.VACUOUS
    assert "at no recorded step" in found.reason
    undecided = promise(1.0, trivial=0.8, holds_in="expectation")
    assert certify(record_of([[0.5]]), undecided).verdict is Verdict.VACUOUS


def test_vacuous_only_where_no_step_says_more():
    values, bound = np.full((2, 4), 0.1), np.array([1.0, 1.0, 1.0, 0.5])
    assert certify(record_of(values), promise(bound, trivial=1.0)).verdict is Verdict.KEPT
    assert certify(record_of(values), promise(bound, trivial=0.5)).verdict is Verdict.VACUOUS
    lower = promise(0.05, sense="lower", trivial=0.0)
    assert certify(record_of(values), lower).verdict is Verdict.KEPT
    lower = promise(-1.0, sense="lower", trivial=0.0)
    assert certify(record_of(values), lower).verdict is Verdict.VACUOUS
    # Initial values differ from seed to seed.
    by_seed = promise(1.0, trivial=lambda record: record["gap"][:, :1])
    assert certify(record_of([[2.0, 0.3], [3.0, 0.2]]), by_seed).verdict is Verdict.BROKEN
    by_seed = promise(4.0, trivial=lambda record: record["gap"][:, :1])
    assert certify(record_of([[2.0, 0.3], [3.0, 0.2]]), by_seed).verdict is Verdict.VACUOUS


def test_kept_is_undecided_where_seeds_lack_steps():
    record = record_of(noisy(mean=0.2, sd=0.02))
    record.append(0, 16, gap=0.1)
    for holds_in in ("every run", "expectation"):
        found = certify(record, promise(1.0, holds_in=holds_in))
        assert found.verdict is Verdict.UNDECIDED
        assert "some seed lacks a step" in found.reason
    assert certify(record, promise(0.01)).verdict is Verdict.BROKEN
    # Which steps are there may depend on what was measured: a mean over those is no evidence either.
    mean = certify(record, promise(0.01, holds_in="expectation"))
    assert mean.verdict is Verdict.UNDECIDED
    assert "seed 1 has 16 steps, seed 0 has 17" in mean.reason


def test_a_violation_at_a_step_that_others_lack_is_seen():
    record = Record()
    record.extend(0, "gap", [0.2] * 5 + [50.0] * 95)
    record.extend(1, "gap", [0.2] * 5)
    found = certify(record, promise(1.0))
    assert found.verdict is Verdict.BROKEN
    assert "seed 0 has gap = 50 at step 5" in found.reason


def test_seeds_that_did_not_record_the_quantity_decide_nothing():
    """X is 1.9 in half of the runs, else 0, and recorded only where it is not 0: its mean is .95."""
    record = Record()
    for seed in range(40):
        record.append(seed, 0, **({"gap": 1.9 + 0.001 * seed} if seed % 2 else {"other": 1.0}))
    found = certify(record, promise(1.0, holds_in="expectation"))
    assert found.verdict is Verdict.UNDECIDED
    assert found.reason.startswith("seeds 0, 2, 4, ")
    assert found.reason.endswith("38 did not record gap")
    # Seeds of another arm are none of this one's.
    arm = Record()
    for seed in range(12):
        arm.append(seed, 0, **{"a: gap": 0.5 + 0.01 * seed} if seed < 6 else {"b: gap": 9.0})
    assert (
        certify(arm, promise(1.0, quantity="a: gap", holds_in="expectation")).verdict
        is Verdict.KEPT
    )


def test_an_infinite_bound_says_nothing():
    assert certify(record_of([[0.5, 0.4]]), promise(np.inf)).verdict is Verdict.VACUOUS
    late = np.array([1.0] * 15 + [np.inf])
    found = certify(record_of(noisy()), promise(late, holds_in="expectation"))
    assert found.verdict is Verdict.KEPT
    assert "1 steps at which the bound is infinite were left out" in found.notes
    # Infinite for one seed alone, it hides no violation of the others.
    some = np.where(np.arange(12)[:, None] == 3, np.inf, np.full((12, 16), 0.05))
    broken = certify(record_of(noisy()), promise(some, holds_in="expectation"))
    assert broken.verdict is Verdict.BROKEN


def test_an_unmeasurable_assumption_does_not_fail_but_is_said():
    unknown = promise(1.0, assumptions=lambda record: [condition(None, None)])
    found = certify(record_of([[0.5]]), unknown)
    assert found.verdict is Verdict.KEPT
    assert "(not measurable here; Lanczos)" in found.summary()


# What it says


def test_summary_labels_heuristics_and_shows_all():
    guess = promise(
        1.0, heuristic=True, assumptions=lambda record: (condition(True), condition(False, None))
    )
    text = certify(record_of([[0.5, 0.4]]), guess).summary()
    assert text.splitlines()[0] == "NOT_PROMISED (heuristic): rate"
    for part in (
        "promised  f(x_n) <= b_n  [arXiv 0000.00000, Theorem 1]",
        "measured  gap, 1 seed(s), measured / promised 0.4 at the end, at worst 0.4 (step 1)",
        "assumes   step size: lr <= 1 / L, measured 3 (holds; Lanczos)",
        "assumes   step size: lr <= 1 / L (FAILS; Lanczos)",
    ):
        assert part in text
    found = certify(record_of([[0.5]]), promise(1.0, heuristic=True))
    assert found.summary().startswith("KEPT (heuristic)")
    assert found.table().title == "rate: KEPT (heuristic)"
    assert "heuristic" not in certify(record_of([[0.5]]), promise(1.0)).summary()


def test_table_lists_the_checked_steps_and_takes_any_name():
    from rich.console import Console

    console = Console(width=100, record=True, file=open("/dev/null", "w", encoding="utf-8"))  # noqa: SIM115
    console.print(certify(record_of([[0.5, 0.25]]), promise(1.0, name="on [a,b]")).table())
    text = console.export_text()
    assert "on [a,b]: KEPT" in text
    assert "0.25" in text
    console.file.close()


def test_surprise_is_what_was_not_announced():
    broken = certify(record_of([[2.0]]), promise(1.0))
    assert broken.surprise
    assert not certify(record_of([[2.0]]), promise(1.0), expected=Verdict.BROKEN).surprise
    assert certify(record_of([[0.5]]), promise(1.0), expected=Verdict.BROKEN).surprise
    assert not certify(record_of([[0.5]]), promise(1.0)).surprise


def test_curve_is_thinned_and_keeps_both_ends():
    values = np.geomspace(1, 1e-3, 200_000) * np.array([[0.5], [1.0], [1.5]])
    steps = np.arange(200_000) * 3
    curve = certify(record_of(values, steps), promise(2.0)).curve
    assert len(curve.steps) <= 400
    assert (curve.steps[0], curve.steps[-1]) == (0, 3 * 199_999)
    at = np.array(curve.steps) // 3
    np.testing.assert_allclose(curve.mean, values[:, at].mean(axis=0))
    np.testing.assert_allclose(curve.lowest, values[0, at])
    np.testing.assert_allclose(curve.highest, values[2, at])
    assert set(curve.promised) == {2.0}


# Bad input


@pytest.mark.parametrize("bound", [np.ones(3), np.ones((3, 4)), np.ones((2, 5)), np.ones((4, 2))])
def test_a_bound_of_another_shape(bound):
    with pytest.raises(ValueError, match=r"bound of 'rate' has shape .* 2 seeds and 4 steps"):
        certify(record_of(np.ones((2, 4))), promise(bound))
    with pytest.raises(ValueError, match="trivial bound of 'rate' has shape"):
        certify(record_of(np.ones((2, 4))), promise(2.0, trivial=lambda record: bound))


@pytest.mark.parametrize("bound", [1.0, np.ones(4), np.ones((2, 4)), np.ones((2, 1))])
def test_a_bound_may_be_a_number_a_curve_or_one_curve_a_seed(bound):
    assert certify(record_of(np.ones((2, 4))), promise(bound)).verdict is Verdict.KEPT


def test_other_bad_input():
    record = record_of(np.ones((2, 4)))
    with pytest.raises(ValueError, match="bound of 'rate' is NaN at some step"):
        certify(record, promise(np.array([1, 1, np.nan, 1])))
    for bound in (0.0, -1.0):
        with pytest.raises(ValueError, match="must be positive at every checked step"):
            certify(record, promise(bound, holds_in="expectation"))
    for confidence in (0.0, 0.3, 1.0):
        with pytest.raises(ValueError, match=r"confidence must be in \[0.5, 1\), got"):
            certify(record, promise(1.0), confidence)
    with pytest.raises(ValueError, match="confidence must be a number, got nan"):
        certify(record, promise(1.0), math.nan)
    for steps in (0, 1):
        for holds_in in ("every run", "expectation"):
            with pytest.raises(ValueError, match="steps must be .*at least 2"):
                certify(record, promise(1.0, holds_in=holds_in), steps=steps)
    with pytest.raises(UnknownNameError, match="unknown quantity 'gab'; there are: gap. Did you"):
        certify(record, promise(1.0, quantity="gab"))
    record = record_of([[1.0]])
    record.append(1, 7, gap=1.0)
    with pytest.raises(ValueError, match="no step of 'gap' was recorded by every seed"):
        certify(record, promise(1.0))


# On disk

numbers = st.floats(allow_nan=True, allow_infinity=True)
lists = st.lists(numbers, max_size=4)
words = st.text(max_size=12)
ids = st.lists(st.integers(0, 2**53), max_size=4)
optional = st.none() | numbers
assumptions = st.builds(
    Assumption, name=words, requires=words, measured=optional, holds=st.none() | st.booleans(), how=words
)  # fmt: skip
details = st.dictionaries(
    words,
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**60), 2**60) | numbers | words
        | st.sampled_from(["nan", "inf"]),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
        max_leaves=6,
    ),
    max_size=3,
)  # fmt: skip
certificates = st.builds(
    Certificate, name=words, statement=words, source=words, quantity=words,
    sense=st.sampled_from(["upper", "lower", "equal"]),
    holds_in=st.sampled_from(["every run", "expectation"]),
    heuristic=st.booleans(), verdict=st.sampled_from(Verdict), reason=words,
    confidence=st.floats(0.5, 0.999), tightness=numbers, seeds=ids, checked=ids, ratio=lists,
    low=lists, high=lists, worst_step=st.none() | st.integers(0, 2**53),
    assumptions=st.lists(assumptions, max_size=3).map(tuple),
    curve=st.builds(PlotCurve, ids, lists, lists, lists, lists),
    more_seeds=st.none() | st.integers(1, 10**6), notes=st.lists(words, max_size=2).map(tuple),
    latex=st.none() | words, part=words, expected=st.none() | st.sampled_from(Verdict),
    details=details,
)  # fmt: skip


@given(certificates)
def test_json_round_trip(certificate):
    text = certificate.to_json()
    assert same(Certificate.from_json(text), certificate)
    # Any reader of JSON can read it: no NaN, no Infinity.
    json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))


def test_round_trip_of_real_certificates(tmp_path):
    diverged = np.array([[1.0, math.inf], [1.0, math.nan]])
    made = [
        certify(record_of(noisy()), promise(1.0, holds_in="expectation")),
        certify(record_of(diverged), promise(np.array([1.0, math.inf]))),
        certify(record_of(diverged), promise(1.0, holds_in="expectation", latex=r"x \le 1")),
    ]
    path = tmp_path / "certificate.json"
    write_certificates(made, path)
    again = read_certificates(path)
    assert all(same(a, b) for a, b in zip(again, made, strict=True))
    assert [c.summary() for c in again] == [c.summary() for c in made]
    assert list(tmp_path.iterdir()) == [path]


@dataclasses.dataclass(frozen=True)
class Longer(Certificate):
    terms: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(10**6))


def test_what_a_method_adds_beside_details_is_not_stored():
    plain = certify(record_of([[0.5]]), promise(1.0))
    fields = {f.name: getattr(plain, f.name) for f in dataclasses.fields(Certificate)}
    longer = Longer(**fields | {"details": {"curve": np.array([1.0, math.nan]), "pair": (1, 2)}})
    again = Certificate.from_json(longer.to_json())
    assert len(longer.to_json()) < 10_000
    assert again.details["curve"][0] == 1.0
    assert math.isnan(again.details["curve"][1])
    assert again.details["pair"] == [1, 2]


def test_a_newer_format_is_one_sentence(tmp_path):
    certificate = certify(record_of([[0.5]]), promise(1.0))
    data = certificate.to_dict() | {"format": FORMAT + 1}
    says = f"format {FORMAT + 1}, this version reads up to {FORMAT}; upgrade surefoot"
    with pytest.raises(FileFormatError, match=says):
        Certificate.from_dict(data)
    path = tmp_path / "certificate.json"
    path.write_text(json.dumps({"format": FORMAT + 1, "certificates": []}))
    with pytest.raises(FileFormatError, match=says):
        read_certificates(path)


@pytest.mark.parametrize("end", [1, 10, 100, -100, -2])
def test_truncated_json_is_one_sentence(tmp_path, end):
    certificate = certify(record_of([[0.5]]), promise(1.0))
    with pytest.raises(FileFormatError, match="truncated") as caught:
        Certificate.from_json(certificate.to_json()[:end])
    assert "\n" not in str(caught.value)
    path = tmp_path / "certificate.json"
    write_certificates([certificate], path)
    path.write_text(path.read_text()[:end])
    with pytest.raises(FileFormatError, match=r"certificate.json is not readable JSON \(truncated"):
        read_certificates(path)


@pytest.mark.parametrize(
    "text",
    [
        "null",
        "[]",
        "3",
        "{}",
        '{"format": "new"}',
        '{"format": 1}',
        '{"format": 1, "verdict": "GOOD"}',
    ],
)
def test_foreign_json(tmp_path, text):
    with pytest.raises(FileFormatError):
        Certificate.from_json(text)
    path = tmp_path / "certificate.json"
    path.write_text(text)
    with pytest.raises(FileFormatError):
        read_certificates(path)


@given(st.data())
def test_a_damaged_certificate_is_a_format_error_or_a_certificate(data):
    whole = certify(record_of(noisy(n=5, steps=2)), promise(1.0, holds_in="expectation")).to_dict()
    field = data.draw(st.sampled_from(sorted(whole)))
    whole[field] = data.draw(
        st.none()
        | st.integers()
        | st.text(max_size=3)
        | st.lists(st.none(), max_size=2)
        | st.just({})
    )
    with contextlib.suppress(FileFormatError):
        assert isinstance(Certificate.from_dict(whole), Certificate)


def test_other_unreadable_files(tmp_path):
    with pytest.raises(FileFormatError, match="is not there; is its folder a run of surefoot"):
        read_certificates(tmp_path / "certificate.json")
    with pytest.raises(FileFormatError, match="not readable JSON"):
        read_certificates(tmp_path)
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(FileFormatError, match="not readable JSON"):
        read_certificates(tmp_path / "binary")
    for certificates in (3, [3], None):
        (tmp_path / "odd").write_text(json.dumps({"format": 1, "certificates": certificates}))
        with pytest.raises(FileFormatError):
            read_certificates(tmp_path / "odd")


# The two numbers that a certificate is read by


@pytest.mark.parametrize(
    ("values", "bound", "sense", "final", "worst", "at"),
    [
        # Both sides start as the same number: no news, so the worst is what came after.
        ([1.0, 0.5, 0.2], [1.0, 0.8, 0.4], "upper", 0.5, 0.625, 1),
        # A lower bound reads the same way round.
        ([4.0, 5.0, 8.0], [4.0, 4.0, 4.0], "lower", 0.5, 0.8, 1),
        ([1.0, 2.0, 8.0], [4.0, 4.0, 4.0], "lower", 0.5, 4.0, 0),
        # Where the first step alone is wrong it is shown.
        ([3.0, 0.5, 0.2], [1.0, 1.0, 1.0], "upper", 0.2, 3.0, 0),
        ([1.0, 1.2, 0.9], [1.0, 1.0, 1.0], "equal", 0.9, 1.2, 1),
        ([0.5], [1.0], "upper", 0.5, 0.5, 0),
    ],
)
def test_the_headline_is_the_end_and_the_worst_after_the_start(
    values, bound, sense, final, worst, at
):
    found = certify(record_of([values]), promise(np.array(bound), sense=sense))
    assert found.final == pytest.approx(final, rel=1e-15)
    assert found.tightness == pytest.approx(worst, rel=1e-15)
    assert found.worst_step == at
    assert (found.tightness <= 1) == (found.verdict is Verdict.KEPT) or sense == "equal"
    assert type(found).from_json(found.to_json()).final == found.final


def test_what_rounding_forgives_is_no_ratio():
    values, bound = np.array([[1.0, 1e-8, 1e-16]]), np.array([1.0, 1e-7, 1e-114])
    found = certify(record_of(values), promise(bound, atol=1e-15))
    assert found.verdict is Verdict.KEPT
    assert (found.final, found.tightness) == (1.0, 1.0)
    assert max(found.ratio) == 1.0
    assert certify(record_of(values), promise(bound)).tightness > 1e90


def test_a_certificate_of_0_1_0_has_no_ratio_at_the_end():
    data = certify(record_of([[0.5, 0.4]]), promise(1.0)).to_dict()
    del data["final"]
    assert math.isnan(type(certify(record_of([[0.5]]), promise(1.0))).from_dict(data).final)


def test_a_certificate_is_printed_as_its_summary_and_shown_as_its_page():
    made = certify(record_of([1.0, 0.5]), promise(2.0))
    assert str(made) == made.summary()
    assert repr(made) == f"<Certificate {made.label}: {made.name}, {made.reason}>"
    assert made._repr_html_() == made.html()
    assert repr([dataclasses.replace(made, part="a part")]).startswith("[<Certificate KEPT: ")
    assert f"{made.name} [a part], " in repr(dataclasses.replace(made, part="a part"))
