"""Error rates and detection of the bets behind a verdict on a mean, by simulation of synthetic records.

A fortune made with n seeds was made with all that came after, so one simulation of 300 seeds gives the
rates for every number of seeds, fixed beforehand or added one at a time until it is decided.

Rates are over 10,000 repetitions at one step and 2,000 at sixteen. The standard error of a rate p is
sqrt(p (1 - p) / repetitions): .10 % or .22 % at p = 1 %, and a bar that is no simulation itself may be
exceeded by 2 of them. Numbers that are one are compared by Fisher's exact test, at .1 % each.
"""

import numpy as np
import pytest
from tests.simulated.laws import BOUNDED, LAWS, batches
from tests.simulated.rule import ALPHA, at_the_bound, broken_at, kept_at, verdicts
from tests.simulated.tables import at_most, compatible, error

from surefoot._verdict.evidence import judge
from surefoot.guarantee import Verdict

pytestmark = [pytest.mark.acceptance, pytest.mark.usefixtures("unchecked")]

MOST_SEEDS = 300
STEPS = ((1, 0.0), (16, 0.5), (16, 0.95))
SENSES = ("upper", "lower", "equal")


def repetitions(steps):
    return 10_000 if steps == 1 else 2000


def times(law, n, steps, correlation, of, runs=None):
    """`of` each record, a number of seeds, over all repetitions."""
    runs = runs or repetitions(steps)
    return np.concatenate([of(x) for x in batches(law, n, steps, correlation, runs)])


@pytest.mark.parametrize(("steps", "correlation"), STEPS)
@pytest.mark.parametrize("law", LAWS)
def test_a_mean_at_its_bound(law, steps, correlation, measured):
    """The hardest truth, and the hardest untruth: BROKEN is wrong of it, and KEPT of one a hair above."""
    runs, called = repetitions(steps), {}
    for x in batches(law, MOST_SEEDS, steps, correlation, runs):
        for case, at in at_the_bound(x, LAWS[law].top).items():
            called.setdefault(case, []).append(at)
    assert len(called) == (6 if law in BOUNDED else 2)
    for (word, sense), at in called.items():
        rate = 100 * np.mean(np.concatenate(at) <= MOST_SEEDS)
        check = f"false {word} by {MOST_SEEDS} seeds, {sense}, {law}, S = {steps} ({correlation})"
        measured(check, f"<= 1 % (s.e. {error(1, runs):.2f})", f"{rate:.2f} %")
        assert at_most(rate, 1, runs)


@pytest.mark.parametrize("law", BOUNDED)
def test_a_mean_beyond_its_bound_is_not_kept_within_a_range(law, measured):
    top = LAWS[law].top
    for factor, sense in ((1.3, "upper"), (1 / 1.3, "lower"), (1.3, "equal")):
        for steps, correlation in ((1, 0.0), (16, 0.5)):
            for width in (1, 3) if sense == "upper" and steps == 1 else (1,):
                runs = 4000 if steps == 1 else 400
                found = times(
                    law, MOST_SEEDS, steps, correlation,
                    lambda x, f=factor, s=sense, w=width: kept_at(
                        f * x, s, np.full(x.shape[1], w * f * top), 0.3 if s == "equal" else 1e-9
                    ),
                    runs,
                )  # fmt: skip
                rate = 100 * np.mean(found <= MOST_SEEDS)
                check = f"false KEPT by {MOST_SEEDS} seeds, {sense}, mean {factor:.2f}, {law}"
                measured(f"{check}, S = {steps}, range x {width}", "<= 1 %", f"{rate:.2f} %")
                assert at_most(rate, 1, runs)


SEEDS = (12, 30, 100)
# By 12, 30 and 100 seeds. At one step over 20,000 repetitions, at sixteen over 150.
DETECTION = {
    ("normal", 1.3, 1): (0, 54, 100),
    ("exponential", 1.3, 1): (1.16, 6.4, 31.7),
    ("lognormal 1", 1.3, 1): (1.1, 4.8, 22.5),
    ("normal", 2, 1): (87.5, 100, 100),
    ("exponential", 2, 1): (22.1, 72.5, 100),
    ("lognormal 1", 2, 1): (19.6, 70.3, 99.9),
    ("normal", 1.3, 16): (0, 95, 100),
    ("normal", 2, 16): (100, 100, 100),
}
FIRST_SIMULATION = {
    ("normal", 1.3, 1): (0, 59, 100),
    ("exponential", 1.3, 1): (0.7, 5, 32),
    ("lognormal 1", 1.3, 1): (0.7, 3, 23),
    ("normal", 2, 1): (87, 100, 100),
    ("exponential", 2, 1): (25, 77, 100),
    ("lognormal 1", 2, 1): (22, 73, 100),
}


@pytest.mark.parametrize("case", DETECTION, ids=lambda c: f"{c[0]}, mean {c[1]}, S = {c[2]}")
def test_detection(case, measured):
    law, mean, steps = case
    runs = 20_000 if steps == 1 else 2000
    correlation = 0.0 if steps == 1 else 0.5
    at = times(law, SEEDS[-1], steps, correlation, lambda x: broken_at(mean * x, "upper"), runs)
    for i, n in enumerate(SEEDS):
        rate, required = 100 * np.mean(at <= n), DETECTION[case][i]
        measured(
            f"BROKEN, {law}, mean {mean}, S = {steps}, n = {n}", f"{required} %", f"{rate:.1f} %"
        )
        for known, over in ((required, 20_000 if steps == 1 else 150), *(
            (FIRST_SIMULATION[k][i], 150) for k in (case,) if k in FIRST_SIMULATION
        )):  # fmt: skip
            assert compatible(rate, runs, known, over, "two-sided")


@pytest.mark.parametrize("law", ["normal", "uniform", "beta(1.5, .15)", "two-point"])
def test_what_a_range_finds_and_keeps(law, measured):
    """No bar: how many seeds the range costs or saves, for `docs/verdicts.md`."""
    runs, top = 2000, LAWS[law].top
    for mean in (0.2, 0.5, 0.8):
        at = times(
            law, MOST_SEEDS, 1, 0.0, lambda x, m=mean: kept_at(m * x, "upper", top * m), runs
        )
        low = times(
            law, MOST_SEEDS, 1, 0.0, lambda x, m=mean: broken_at(m * x, "lower", top * m), runs
        )
        for word, found in (("KEPT, upper", at), ("BROKEN, lower", low)):
            rates = " / ".join(f"{100 * np.mean(found <= n):.0f}" for n in (*SEEDS, MOST_SEEDS))
            measured(f"{word}, {law}, mean {mean}, its range, n = 12/30/100/300", "", f"{rates} %")
        # The same bets: what keeps "upper" refutes "lower", but for the rounding that each forgives.
        assert np.mean(at != low) < 0.001
    assert np.mean(low <= MOST_SEEDS) > 0 or law == "two-point"


def test_without_a_range_and_a_law_nothing_is_too_low():
    """And what "equal" calls too high needs no range either."""
    for law in LAWS:
        for n, steps in ((8, 1), (30, 16)):
            for x in batches(law, n, steps, 0.5 if steps > 1 else 0.0, 15):
                for one in x.transpose(2, 0, 1):
                    low = [judge(0.3 * one, sense=s).verdict for s in ("lower", "equal")]
                    assert Verdict.BROKEN not in (*low, judge(one, sense="lower").verdict)


def random_case(rng):
    """Five records and how to judge them: laws, starts, agreement, values below zero, ranges of all kinds."""
    names = list(LAWS)
    law = LAWS[names[rng.integers(len(names))]]
    sense = SENSES[rng.integers(3)]
    n, steps = (
        int(rng.integers(5, 200 if sense == "equal" else 60)),
        int(rng.choice([1, 3, 16, 40])),
    )
    mean = (
        1 if sense == "equal" and rng.random() < 0.6 else rng.choice([0.1, 0.5, 0.9, 1, 1.3, 2, 3])
    )
    scale = mean * np.where(rng.random(steps) < rng.choice([0.2, 1]), 1, 0.3)
    z = rng.standard_normal((n, 1, 5)) * 0.7 + 0.714 * rng.standard_normal((n, steps, 5))
    x = law(z) * scale[:, None]
    top = law.top * scale
    kind = rng.choice(["", "start", "silent", "below", "outside"], p=[0.6, 0.1, 0.1, 0.1, 0.1])
    if kind == "start":
        x[:, 0], top[0] = (found := rng.choice([0.5, 1.0, 1.1])), found
    elif kind == "silent":
        x[:, -1] = 0.2 * scale[-1]
    elif kind == "below":
        x[rng.integers(n), rng.integers(steps)] = -0.1
    elif kind == "outside":
        x[rng.integers(n), rng.integers(steps)] = 1.01 * top.max()
    bounded = np.isfinite(x).all() and np.isfinite(top).all() and rng.random() < 0.6
    how = {
        "sense": sense,
        "top": (top * rng.choice([1, 2]) if bounded else None),
        "law": rng.choice(np.array([None, "light-tailed"])),
        "look": [None, 1, 4][rng.integers(3)],
    }
    how["tolerance"] = rng.choice([0.05, 0.6]) if sense == "equal" else 1e-9
    return np.where(np.isfinite(x), x, 5.0), how


def test_the_rule_at_once_is_judges(measured):
    rng = np.random.default_rng(0)
    seen, cases = {}, 0
    for _ in range(240):
        x, how = random_case(rng)
        at_once = verdicts(x, **how)
        for i in range(x.shape[2]):
            found = judge(x[:, :, i], **how).verdict
            assert at_once[i] is found
            kind = how["sense"], how["top"] is not None, found
            seen[kind], cases = seen.get(kind, 0) + 1, cases + 1
    # Every verdict of every sense, with a range and without.
    for sense in SENSES:
        for ranged in (True, False):
            for verdict in (Verdict.KEPT, Verdict.BROKEN, Verdict.UNDECIDED):
                assert seen.get((sense, ranged, verdict), 0) >= 3
    measured("records judged one by one as at once", "all", f"{cases} of {cases}")


def test_the_first_number_of_seeds_is_the_first_that_judge_calls():
    rng, decided = np.random.default_rng(1), 0
    for _ in range(60):
        law = str(rng.choice(BOUNDED))
        mean, steps = rng.choice([0.3, 1.5, 2]), int(rng.choice([1, 16]))
        x = mean * LAWS[law](rng.standard_normal((40, steps, 1)))
        sense, top = str(rng.choice(["upper", "lower"])), np.full(steps, LAWS[law].top * mean)
        broken, kept = broken_at(x, sense, top)[0], kept_at(x, sense, top)[0]
        for n in (5, 6, 8, 12, 20, 40):
            verdict = judge(x[:n, :, 0], sense=sense, top=top).verdict
            if verdict is Verdict.UNDECIDED:
                assert n < broken
                continue
            decided += 1
            assert n >= (broken if verdict is Verdict.BROKEN else kept)
    assert decided > 60


def test_levels():
    assert ALPHA == pytest.approx(0.01)
