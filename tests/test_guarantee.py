"""The shared types: what they accept, what they make of it, what they refuse."""

import dataclasses
import math
import pickle

import numpy as np
import pytest

from surefoot import Assumption, Guarantee, Verdict
from surefoot.errors import (
    FileFormatError,
    MissingExtraError,
    NonFiniteError,
    SurefootError,
    UnknownNameError,
)


def promise(**changes):
    fields = {
        "name": "rate", "statement": "f(x_n) <= 1/n", "source": "arXiv 0000.00000, Theorem 1",
        "quantity": "gap", "sense": "upper", "holds_in": "every run", "bound": lambda record: 1.0,
    }  # fmt: skip
    return Guarantee(**(fields | changes))


def test_verdicts_are_their_names():
    assert [str(v) for v in Verdict] == ["KEPT", "BROKEN", "UNDECIDED", "VACUOUS", "NOT_PROMISED"]
    assert Verdict("BROKEN") is Verdict.BROKEN


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sense": "below"}, "sense must be one of 'upper', 'lower', 'equal', got 'below'"),
        ({"holds_in": "heuristic"}, "holds_in must be one of .*'expectation'.*, got 'heuristic'"),
        ({"tolerance": -1e-9}, r"tolerance must be in \[0, 1\)"),
        ({"tolerance": 1.0}, r"tolerance must be in \[0, 1\)"),
        ({"tolerance": math.nan}, "tolerance must be a number, got nan"),
        ({"atol": -1.0}, r"atol in \[0, inf\), got 1e-09 and -1.0"),
        ({"atol": math.inf}, r"atol in \[0, inf\)"),
        ({"value_range": (1.0, 2.0)}, r"value_range must be \(0, c\) with 0 < c < inf, got \(1.0"),
        ({"value_range": (0.0, 0.0)}, "value_range must be"),
        ({"value_range": (0.0,)}, "value_range must be"),
        ({"law": "normal"}, "law must be 'light-tailed' or None"),
        ({"value_range": (0.0, math.inf)}, "value_range must be"),
    ],
)
def test_bad_guarantees(changes, message):
    with pytest.raises(ValueError, match=message):
        promise(**changes)


def test_a_promise_cannot_be_changed_after_the_fact():
    with pytest.raises(dataclasses.FrozenInstanceError):
        promise().tolerance = 0.5


@pytest.mark.parametrize("holds", [np.False_, np.array(2.0) <= 1.0])
def test_a_condition_measured_with_arrays_fails_as_a_plain_one_does(holds):
    assert Assumption("step size", "lr <= 1", np.float64(2), holds, "given").holds is False
    assert Assumption("step size", "lr <= 1", np.float64(2), ~holds, "given").holds is True
    assert type(Assumption("a", "b", np.float64(2), None, "c").measured) is float
    assert Assumption("a", "b", None, None, "c").holds is None


@pytest.mark.parametrize(
    "error",
    [
        UnknownNameError("quantity", "los", ["loss", "lr"]),
        MissingExtraError("the accountant", "dp-accounting", "privacy"),
        FileFormatError("not a run"),
        NonFiniteError("loss", 3, math.inf, "good.pt"),
    ],
)
def test_errors_survive_the_way_out_of_a_worker_process(error):
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert isinstance(again, SurefootError)
    assert str(again) == str(error)
    assert "\n" not in str(again)
    assert vars(again) == vars(error)


def test_messages():
    unknown = UnknownNameError("quantity", "los", ["lr", "loss"])
    assert str(unknown) == "unknown quantity 'los'; there are: loss, lr. Did you mean 'loss'?"
    assert str(UnknownNameError("part", "x", [])) == "unknown part 'x'; there are: none."
    missing = MissingExtraError("the accountant", "dp-accounting", "privacy")
    assert str(missing).endswith("run: pip install 'surefoot[privacy]'")
    lost = NonFiniteError("loss", 3, math.nan)
    assert str(lost) == "loss is nan at step 3; no checkpoint was kept"
