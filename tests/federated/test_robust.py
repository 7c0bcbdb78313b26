"""What a server may do that distrusts its clients, and what no client may claim."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from surefoot.errors import SurefootError
from surefoot.federated import DeterministicFedAvg, federate, weighted_mean
from surefoot.federated.robust import Declared, robust_mean
from surefoot.federated.run_config import check_config
from surefoot.federated.server_rule import ServerRule

VALUES = st.lists(st.floats(-1e6, 1e6, width=32), min_size=3, max_size=9)


def replies(values, weights=None):
    weights = weights or [1.0] * len(values)
    return {
        p: ({"w": torch.tensor([v])}, w)
        for p, (v, w) in enumerate(zip(values, weights, strict=True))
    }


@given(VALUES)
def test_median_and_trimmed_mean_are_numpys(values):
    wide = np.asarray(values, np.float32).astype(np.float64)
    assert robust_mean(replies(values), "median")["w"].item() == np.float32(np.median(wide))
    trimmed = np.sort(wide)[1:-1].mean()
    assert robust_mean(replies(values), "trimmed:1")["w"].item() == pytest.approx(
        trimmed, rel=1e-6, abs=1e-30
    )


@given(VALUES, st.floats(-(2.0**100), 2.0**100, width=32), st.floats(1, 1e9))
def test_one_client_moves_neither_out_of_the_range_of_the_others(values, lie, weight):
    for how in ("median", "trimmed:1"):
        found = robust_mean(replies([*values, lie], [1.0] * len(values) + [weight]), how)[
            "w"
        ].item()
        slack = 1e-6 * max(map(abs, values))
        assert min(values) - slack <= found <= max(values) + slack


@given(VALUES, st.randoms())
def test_the_order_of_arrival_changes_nothing(values, random):
    given_ = list(replies(values).items())
    random.shuffle(given_)
    for how in (None, "median", "trimmed:1"):
        assert torch.equal(
            robust_mean(dict(given_), how)["w"], robust_mean(replies(values), how)["w"]
        )


def test_integers_and_switches():
    given_ = {
        p: ({"n": torch.tensor(n), "on": torch.tensor(True)}, 1.0)
        for p, n in enumerate((7, 2**60 + 1, 3))
    }
    found = robust_mean(given_, "median")
    assert found["n"] == 7
    assert found["on"]
    given_[1][0]["on"] = torch.tensor(False)
    with pytest.raises(ValueError, match="differ in on"):
        robust_mean(given_, "median")


@pytest.mark.parametrize(
    "how", ["mean", "trimmed", "trimmed:0", "trimmed:-1", "trimmed:1.5", "", 3, True]
)
def test_what_is_no_such_average_is_refused_everywhere(how):
    for door in (
        lambda: robust_mean(replies([1.0, 2.0, 3.0]), how),
        lambda: DeterministicFedAvg(3, robust=how),
        lambda: federate(Liar(None), 1, 3, robust=how),
    ):
        with pytest.raises((ValueError, TypeError), match="robust"):
            door()


def test_too_few_for_what_is_left_out():
    with pytest.raises(ValueError, match="needs more than 4 replies, got 4"):
        robust_mean(replies([1.0, 2.0, 3.0, 4.0]), "trimmed:2")
    with pytest.raises(ValueError, match="needs more than 4 partitions, got 4"):
        DeterministicFedAvg(4, robust="trimmed:2")


class Liar:
    """Client 0 answers what it is told to; the others answer 1 and have ten examples."""

    def __init__(self, says):
        self.says = says

    def initial(self, seed):
        return {"w": torch.zeros(2)}

    def train(self, state, visit):
        if visit.partition == 0 and self.says is not None:
            return self.says(visit)
        return {"w": torch.ones(2)}, 10, {}

    def evaluate(self, state):
        return {}


ONES = {"w": torch.ones(2)}
LIES = {
    "NaN": (lambda v: ({"w": torch.full((2,), math.nan)}, 10, {}), "NaN or infinity"),
    "shape": (lambda v: ({"w": torch.ones(3)}, 10, {}), "w is float32 3, it must be float32 2"),
    "dtype": (lambda v: ({"w": torch.ones(2).double()}, 10, {}), "w is float64 2, it must be float32 2"),
    "name": (lambda v: ({"v": torch.ones(2)}, 10, {}), "v is float32 2, it must be none"),
    "grows": (lambda v: (ONES, 10 * v.server_round, {}), "first declared 10"),
    "too many": (lambda v: (ONES, 10**10, {}), "max_examples"),
    "infinite": (lambda v: (ONES, math.inf, {}), "positive number"),
    "negative": (lambda v: (ONES, -1, {}), "positive number"),
}  # fmt: skip


@pytest.mark.parametrize("what", LIES)
def test_the_loop_drops_a_liar_by_name_as_the_strategy_does(what):
    says, reason = LIES[what]
    state = federate(Liar(says), 2, 3)
    last = state.history.rounds[-1]
    assert last.partitions == [1, 2]
    assert reason in last.rejected[0]
    assert torch.equal(state["w"], torch.ones(2))


def test_a_run_without_a_reply_is_none():
    class Nobody(Liar):
        def train(self, state, visit):
            return {"w": torch.full((2,), math.nan)}, 10, {}

    with pytest.raises(SurefootError, match="nothing was trained; partition 0: .*NaN or infinity"):
        federate(Nobody(None), 2, 3)


def test_the_median_bears_a_liar_and_the_mean_does_not():
    far = {"w": torch.full((2,), 1e6)}
    assert torch.equal(
        federate(Liar(lambda v: (far, 10, {})), 1, 3, robust="median")["w"], torch.ones(2)
    )
    assert federate(Liar(lambda v: (far, 10, {})), 1, 3)["w"][0] > 1e5


def test_the_record_says_which_average_it_was():
    """A theorem of the exact mean asks for the server's rule by name."""
    record = federate(Liar(None), 1, 3, robust="median").record
    assert record.fact("weighting").all == ("median",)
    assert record.fact("server").all == ("median",)
    assert federate(Liar(None), 1, 3).record.fact("server").all == ("fedavg",)


def test_a_theorem_of_the_mean_is_not_promised_of_the_median():
    from surefoot.reparam.doors.flower import RepOptStrategy

    mean, median = (RepOptStrategy(3, mults={}, robust=how) for how in (None, "median"))
    assert mean.assumption.holds
    assert median.assumption.holds is False
    assert RepOptStrategy(3, mults={}, robust="trimmed:1").assumption.holds is False


def test_strategies_with_a_mean_of_their_own_refuse_it():
    from surefoot.lora.doors.flower import RacSettings, RacStrategy

    with pytest.raises(ValueError, match="robust = 'median' is not defined for RacStrategy"):
        RacStrategy(3, settings=RacSettings(2, 0.1, 1, "B", 1.0), robust="median")


@pytest.mark.parametrize("weights", [(1e308, 1e308), (1e308, 1e-308), (5e-324, 5e-324), (1, 1e300)])
def test_no_weight_overflows_the_mean(weights):
    found = weighted_mean({p: ({"w": torch.ones(2)}, w) for p, w in enumerate(weights)})["w"]
    assert torch.equal(found, torch.ones(2))


def test_values_at_the_end_of_their_range_stay_there():
    for dtype in (torch.float16, torch.float32, torch.float64):
        most = torch.full((2,), torch.finfo(dtype).max, dtype=dtype)
        for how in (None, "median", "trimmed:1"):
            found = robust_mean({p: ({"w": most}, 1.0) for p in range(4)}, how)["w"]
            assert torch.isfinite(found).all(), (dtype, how)
            assert torch.allclose(found.double(), most.double(), rtol=1e-3)


def test_the_mean_itself_refuses_what_the_strategy_would():
    good = {"w": torch.ones(2)}
    for bad, reason in (
        ({"w": torch.full((2,), math.inf)}, "those of 1 differ: w holds NaN or infinity"),
        ({"w": torch.ones(1)}, "those of 1 differ: w is float32 1, it must be float32 2"),
        ({"w": torch.ones(2).half()}, "w is float16 2, it must be float32 2"),
        ({}, "w is none, it must be float32 2"),
    ):
        for average in (weighted_mean, lambda r: robust_mean(r, "median")):
            with pytest.raises(ValueError, match=reason):
                average({0: (good, 1.0), 1: (bad, 1.0)})


def test_a_declared_number_may_shrink_and_never_grow():
    declared = Declared(100)
    assert declared.check(0, 10) == 10
    assert declared.check(0, 7) == 7
    assert declared.check(0, 10) == 10
    with pytest.raises(ValueError, match="first declared 10"):
        declared.check(0, 11)
    assert declared.check(1, 100) == 100
    for bad in (math.nan, "7", True, None):
        with pytest.raises(ValueError, match="positive number"):
            declared.check(2, bad)
    for bad in (0, math.nan, "many"):
        with pytest.raises(ValueError, match="max_examples"):
            Declared(bad)


def test_a_configuration_is_checked_before_anything_starts():
    defaults = {"lr": 0.1, "rounds": 3, "data": "digits", "fast": False}
    check_config({"lr": 1, "rounds": 4, "data": "x", "fast": True}, defaults)
    with pytest.raises(ValueError, match="did you mean rounds by round"):
        check_config({"round": 3}, defaults)
    with pytest.raises(
        ValueError, match="lr must be a number, got 'a'; rounds must be a whole number, got 2.5"
    ):
        check_config({"lr": "a", "rounds": 2.5}, defaults)
    for wrong in ({"fast": 1}, {"data": 3}, {"lr": True}):
        with pytest.raises(ValueError, match="must be"):
            check_config(wrong, defaults)


def test_what_a_rule_does_to_a_robust_mean_is_what_it_does_to_a_mean():
    old, new = {"w": torch.zeros(1)}, replies([1.0, 2.0, 30.0])
    rule = ServerRule(lr=0.5)
    assert rule.apply(old, robust_mean(new, "median"))["w"].item() == 1.0
