"""The learning rate with the lowest held-out loss, whatever diverges, and what is tried beyond the grid."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from surefoot.finetune import METHODS
from surefoot.finetune.looks import Looks
from surefoot.finetune.rates import GRIDS, choose, steps_of


def test_every_method_has_a_rising_grid():
    assert set(GRIDS) == set(METHODS)
    assert all(list(grid) == sorted(set(grid)) and len(grid) > 2 for grid in GRIDS.values())


def bowl(best):
    return lambda rate: (math.log10(rate) - best) ** 2


def test_the_lowest_is_taken_and_nothing_is_tried_twice():
    tried, known = [], {}

    def attempt(rate):
        tried.append(rate)
        return bowl(-4)(rate)

    assert choose((1e-5, 1e-4, 1e-3), attempt, known) == 1e-4
    assert tried == [1e-5, 1e-4, 1e-3] == sorted(known)
    assert choose((1e-5, 1e-4, 1e-3), attempt, known) == 1e-4
    assert len(tried) == 3


@pytest.mark.parametrize(
    ("best", "rate"), [(-2, 1e-2), (-1, 1e-1), (2, 1e-1), (-6, 1e-6), (-9, 1e-7)]
)
def test_beyond_the_end_of_the_grid_two_more_are_tried(best, rate):
    assert choose((1e-5, 1e-4, 1e-3), bowl(best), {}) == pytest.approx(rate)


def test_what_diverges_is_not_taken():
    def attempt(rate):
        return math.inf if rate > 2e-4 else -rate

    assert choose((1e-5, 1e-4, 1e-3), attempt, {}) == 1e-4
    with pytest.raises(ValueError, match="not finite at any rate"):
        choose((1e-5, 1e-4), lambda rate: math.inf, {})


@given(st.integers(1, 10**6))
def test_a_try_is_a_share_of_the_steps(steps):
    assert 1 <= steps_of(steps) <= min(60, steps)


def test_looks_end_after_so_many_without_a_better_one_and_are_found_again(tmp_path):
    looks = Looks(tmp_path / "looks.json", 2)
    assert [looks.add(step, loss=loss) for step, loss in ((5, 3.0), (10, 2.0), (15, 2.0))] == [
        True,
        True,
        False,
    ]
    assert not looks.enough
    looks.add(20, loss=2.5)
    assert looks.enough
    assert looks.best["step"] == 10
    # A training that went back to step 15 makes the look at step 20 again.
    again = Looks.at(tmp_path / "looks.json", 2, 15)
    assert [look["step"] for look in again.all] == [5, 10, 15]
    assert not again.enough
    assert not Looks.at(tmp_path / "none.json", 2, 15).all
