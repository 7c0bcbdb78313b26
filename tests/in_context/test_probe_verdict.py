"""From errors to a verdict: pure arithmetic, so that each clause can be tried alone."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from surefoot.in_context._probe.verdict import Sums, choose_loops, decide, judge

BAD = {"ols": 0.1, "ridge": 0.1, "untied": 0.1, "zero": 1.0}
GOOD = {1: 0.1, 2: 1e-9, 3: 1e-3}


def test_the_smallest_number_of_steps_within_ten_times_the_least():
    # A true model of four loops: three and five fit to below 1e-3, and only four is right.
    assert choose_loops({1: 0.1, 2: 2e-2, 3: 9e-4, 4: 1e-18, 5: 1.1e-4}) == 4
    assert choose_loops({1: 0.1, 2: 5e-3, 3: 1e-3}) == 2
    # Below rounding, more steps are not better.
    assert choose_loops({1: 1e-14, 2: 1e-20}) == 1


def test_gradient_descent_needs_both_clauses():
    assert decide(0, 0, GOOD, BAD) == ("gd", 2)
    # OLS on long prompts: a small error, and least squares ten thousand times smaller.
    assert decide(0, 0, {4: 3e-5}, BAD | {"ols": 1e-28, "ridge": 1e-20})[0] == "ols"
    assert decide(0, 0, {4: 3e-5}, BAD | {"ridge": 2e-4})[0] == "ridge"
    assert decide(0, 0, {4: 2e-3}, BAD)[0] == "ols"
    # As good as least squares to rounding is not better.
    assert decide(0, 0, {8: 1e-15}, BAD | {"ols": 1e-28, "ridge": 1e-20})[0] == "ols"


def test_unequal_steps_win_only_where_they_are_much_better():
    assert decide(0, 0, GOOD, BAD | {"untied": 1e-9})[0] == "gd"
    assert decide(0, 0, GOOD, BAD | {"untied": 1e-12})[0] == "untied"
    assert decide(0, 0, {2: 1e-13}, BAD | {"untied": 1e-30})[0] == "gd"


@pytest.mark.parametrize(
    ("lin_q", "lin_y", "verdict"),
    [
        (1e-3, 0, "not linear in the query"), (1, 1, "not linear in the query"),
        (9e-4, 1e-3, "not linear in y"), (9e-4, 9e-4, "gd"),
        (float("nan"), 0, "not linear in the query"),
    ],
)  # fmt: skip
def test_linearity_comes_first(lin_q, lin_y, verdict):
    assert decide(lin_q, lin_y, GOOD, BAD)[0] == verdict


def test_ridge_that_is_as_good_as_least_squares_is_least_squares():
    bad = {1: 0.5}
    assert decide(0, 0, bad, BAD | {"ols": 1e-13, "ridge": 1e-14})[0] == "ols"
    assert decide(0, 0, bad, BAD | {"ols": 1e-6, "ridge": 1e-14})[0] == "ridge"


errors = st.floats(1e-30, 10)


@given(errors, errors, st.dictionaries(st.integers(1, 8), errors, min_size=1),
       errors, errors, errors)  # fmt: skip
def test_whatever_the_errors_gd_means_small_and_better_than_what_does_not_contain_it(
    lin_q, lin_y, tied, ols, ridge, untied
):
    others = {"ols": ols, "ridge": ridge, "untied": untied, "zero": 1.0}
    verdict, loops = decide(lin_q, lin_y, tied, others)
    if verdict == "gd":
        assert max(lin_q, lin_y, tied[loops]) < 1e-3
        assert max(tied[loops], 1e-12) <= 0.1 * max(1e-12, min(ols, ridge, 1.0))
    elif verdict in others:
        assert max(lin_q, lin_y) < 1e-3


def made(top_gd):
    one = torch.ones(len(top_gd), dtype=torch.float64)
    tops = {"gd 1": top_gd, "ols": one, "ridge": one, "untied": one, "zero": one,
            "lin_q": 0 * one, "lin_y": 0 * one}  # fmt: skip
    return Sums(tops, dict.fromkeys(tops, one), {1: "gd 1"})


def test_intervals_are_those_of_resampled_prompts():
    top = torch.linspace(0, 1, 400, dtype=torch.float64)
    found = judge(made(top), 0.95, seed=0)
    # The mean of 400 uniform numbers: 0.5 with standard error 0.0144.
    assert found.errors["gd 1"] == pytest.approx(0.5)
    low, high = found.intervals["gd 1"]
    assert low == pytest.approx(0.5 - 1.96 * 0.01445, abs=0.004)
    assert high == pytest.approx(0.5 + 1.96 * 0.01445, abs=0.004)
    assert found.agreement == 1


def test_one_prompt_that_carries_the_verdict_shows_in_the_agreement():
    top = torch.zeros(100, dtype=torch.float64)
    top[0] = 1.0
    found = judge(made(top), 0.99, seed=0)
    assert found.verdict != "gd"
    # That prompt is left out of a resample with probability 0.99^100 = 0.366.
    assert found.agreement == pytest.approx(1 - 0.366, abs=0.05)
