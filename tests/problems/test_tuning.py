"""Equal tuning: the same number of candidates for all, the first of the best, edges and ties told."""

import math

import pytest

from surefoot import Record
from surefoot._problems.tuning import EqualTuning, remarks

GRID = (0.1, 0.2, 0.4)


def choose(scores, better="lower", grid=GRID):
    return EqualTuning(better).choose("arm", grid, lambda v: (scores[grid.index(v)], f"at {v}"))


def test_the_best_score_wins_and_brings_its_result():
    low, high = choose((3.0, 1.0, 2.0)), choose((1.0, 3.0, 2.0), "higher")
    assert (low.value, low.score, low.found, low.edge) == (0.2, 1.0, "at 0.2", "")
    assert (high.value, high.score, high.found) == (0.2, 3.0, "at 0.2")
    assert low.scores == {0.1: 3.0, 0.2: 1.0, 0.4: 2.0}


def test_the_first_of_equals_wins_and_the_others_are_named():
    for better in ("lower", "higher"):
        found = choose((1.0, 1.0, 1.0), better)
        assert (found.value, found.tied) == (0.1, (0.2, 0.4))


@pytest.mark.parametrize(
    ("scores", "grid", "edge"),
    [
        ((1.0, 2.0, 3.0), (0.1, 0.2, 0.4), "lowest"),
        ((1.0, 2.0, 3.0), (0.4, 0.2, 0.1), "highest"),
        ((2.0, 1.0, 3.0), (0.2, 0.1, 0.4), "lowest"),
        ((1.0, 2.0, 3.0), (0.2, 0.1, 0.4), ""),
        ((1.0,), (0.1,), "only"),
    ],
)
def test_an_edge_is_one_of_the_values_and_not_of_the_order(scores, grid, edge):
    assert choose(scores, grid=grid).edge == edge


def test_a_candidate_that_diverged_never_wins():
    for bad in (math.nan, math.inf, -math.inf):
        for better in ("lower", "higher"):
            found = choose((bad, 5.0, bad), better)
            assert (found.value, found.score) == (0.2, 5.0)
            lost = choose((bad, bad, bad), better)
            assert (lost.value, lost.edge, lost.tied) == (0.1, "diverged", ())


def test_arms_with_unequal_grids_are_refused():
    tuning = EqualTuning("lower")
    tuning.choose("plain", GRID, lambda v: (v, None))
    tuning.choose("other values", (1.0, 2.0, 3.0), lambda v: (v, None))
    with pytest.raises(ValueError, match="equally many candidates: 'plain' had 3, 'ours' has 4"):
        tuning.choose("ours", (*GRID, 0.8), lambda v: (v, None))
    for grid in ((), (0.1, 0.1, 0.2)):
        with pytest.raises(ValueError, match="the grid of 'bad' must hold different candidates"):
            EqualTuning("lower").choose("bad", grid, lambda v: (v, None))
    with pytest.raises(ValueError, match="better must be one of 'lower', 'higher', got 'best'"):
        EqualTuning("best")


def test_each_candidate_is_tried_once_in_order():
    tried = []
    EqualTuning("lower").choose("arm", GRID, lambda v: (tried.append(v) or v, None))
    assert tried == list(GRID)


def test_what_a_table_says(tmp_path):
    with Record(tmp_path) as record:
        for seed, scores in enumerate(((1.0, 2.0, 3.0), (2.0, 1.0, 1.0), (3.0, 1.0, 2.0))):
            choose(scores).note(record, "arm", seed)
            choose((2.0, 1.0, 3.0)).note(record, "calm", seed)
            choose((1.0,), grid=(0.1,)).note(record, "quick", seed)
            choose((math.nan,) * 3).note(record, "wild", seed)
            record.append(seed, 0, x=1.0)
    for found in (record, Record.read(tmp_path)):
        assert remarks(found, "arm") == "1 of 3 at the lowest of the grid, 1 of 3 tied"
        assert remarks(found, "calm") == "inside the grid"
        assert remarks(found, "quick") == "one candidate"
        assert remarks(found, "wild") == "3 of 3 diverged at every candidate"
        assert remarks(found, "nobody") == "not recorded"
