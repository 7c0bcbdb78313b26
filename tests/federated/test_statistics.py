"""Statistics are averaged, never extrapolated; what a federation cannot average is refused by name."""

import itertools

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord
from flwr.clientapp.mod import LocalDpMod
from flwr.serverapp.strategy import DifferentialPrivacyServerSideFixedClipping
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.federated.grid import InProcessGrid
from torch import nn

from surefoot.federated import (
    DeterministicFedAvg,
    ServerRule,
    federate,
    from_arrays,
    make_client_app,
    to_arrays,
    weighted_mean,
)
from surefoot.federated._arrays import KNOWN, STATISTICS, check_values, is_statistic
from surefoot.federated._payload import npy_bytes, packed, unpacked
from surefoot.federated.records import state_of

RULES = {
    "fedavg at 1": ServerRule, "fedavg at 2": lambda: ServerRule("fedavg", 2.0),
    "fedavg at 0.3": lambda: ServerRule("fedavg", 0.3), "fedprox at 2": lambda: ServerRule("fedprox", 2.0),
    "fedavgm": lambda: ServerRule("fedavgm"), "fedadam": lambda: ServerRule("fedadam", 1.0),
    "fedyogi": lambda: ServerRule("fedyogi", 1.0), "fedadagrad": lambda: ServerRule("fedadagrad", 1.0),
}  # fmt: skip
NORMS = {
    "batch": lambda: nn.BatchNorm1d(3), "sync": lambda: nn.SyncBatchNorm(3),
    "instance": lambda: nn.InstanceNorm1d(3, affine=True, track_running_stats=True),
    "alone": lambda: nn.BatchNorm1d(3, affine=False),
}  # fmt: skip


class Shrinking:
    """Clients whose variances fall round by round, the case in which a step beyond the mean goes below 0."""

    def __init__(self, norm="batch"):
        self.norm = norm

    def initial(self, seed):
        model = nn.Sequential(nn.Linear(3, 3), NORMS[self.norm]())
        return {k: v.clone() for k, v in model.state_dict().items()}

    def train(self, state, visit):
        for name, value in state.items():
            if name.endswith("running_var"):
                value *= 0.1 * (1 + visit.partition)
            elif value.is_floating_point():
                value += 0.1
            else:
                value += 7 + visit.partition
        return state, 1 + visit.partition, {}

    def evaluate(self, state):
        return {}


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("name", RULES)
def test_statistics_are_the_mean_of_the_last_round_under_every_rule(name, norm):
    task, states = Shrinking(norm), []
    federate(task, 5, 3, rule=RULES[name](), after=lambda r, state, m: states.append(state))
    for before, after in itertools.pairwise([task.initial(0), *states]):
        fed = {"w": (1, 2, 3), "v": (0.1, 0.2, 0.3)}
        share = np.average(fed["v"], weights=fed["w"])
        variance = [k for k in after if k.endswith("running_var")]
        assert len(variance) == 1
        assert torch.allclose(after[variance[0]], before[variance[0]] * share)
        mean = variance[0].replace("running_var", "running_mean")
        assert torch.allclose(after[mean], before[mean] + 0.1)
        counter = variance[0].replace("running_var", "num_batches_tracked")
        assert after[counter] == before[counter] + 9
        assert all(torch.isfinite(v).all() for v in after.values())
    if name != "fedavg at 1" and norm != "alone":
        # Weights still move by the rule.
        assert not torch.allclose(states[-1]["1.weight"], task.initial(0)["1.weight"] + 0.5)


def test_names_of_ones_own_statistics():
    rule = ServerRule("fedavg", 2.0, statistics=(*STATISTICS, "ema"))
    old, mean = {"a.ema": torch.zeros(1)}, {"a.ema": torch.ones(1)}
    assert rule.apply(old, mean)["a.ema"] == 1
    assert ServerRule("fedavg", 2.0).apply(old, mean)["a.ema"] == 2
    assert is_statistic("running_var")
    assert not is_statistic("my_running_var.weight")


@given(
    st.sampled_from(sorted(RULES)),
    st.lists(st.sampled_from([0.0, 1e-30, 1e-3, 0.7, 1.0, 5e3, 1e30]), min_size=1, max_size=4),
    st.integers(1, 4),
)
@settings(deadline=None, max_examples=40)
def test_no_rule_takes_a_variance_out_of_the_range_of_the_clients(name, values, rounds):
    rule, state = RULES[name](), {"n.running_var": torch.ones(1)}
    for _ in range(rounds):
        replies = {p: ({"n.running_var": torch.tensor([v])}, p + 1.0) for p, v in enumerate(values)}
        state = rule.apply(state, weighted_mean(replies))
        low, high = min(values), max(values)
        assert low * (1 - 1e-6) - 1e-44 <= state["n.running_var"].item() <= high * (1 + 1e-6)


NEGATIVE = r"1\.running_var holds a negative variance"


def test_a_negative_variance_is_refused_wherever_it_comes_from():
    class Beyond(ServerRule):
        """A rule of one's own that goes on in the direction of the mean."""

        def apply(self, old, mean):
            return {k: old[k] + 3 * (v - old[k]) for k, v in mean.items()}

    class Broken(Shrinking):
        def train(self, state, visit):
            state, n, found = super().train(state, visit)
            state["1.running_var"][visit.partition] -= 5 * (visit.partition == 1)
            return state, n, found

    initial = Shrinking().initial(0)
    with pytest.raises(ValueError, match=NEGATIVE):
        federate(Shrinking(), 2, 3, rule=Beyond())
    reference = federate(Broken(), 1, 3)
    assert [list(r.rejected) for r in reference.history.rounds] == [[1]]
    assert "negative variance" in reference.history.rounds[0].rejected[1]
    with pytest.raises(ValueError, match=NEGATIVE):
        flower(Shrinking, DeterministicFedAvg(3, rule=Beyond(), node_timeout=0.1))
    with pytest.raises(ValueError, match=NEGATIVE):
        flower(Shrinking, initial={**initial, "1.running_var": -torch.ones(3)})
    strategy = flower(Broken)
    assert [list(r.rejected) for r in strategy.history.rounds] == [[1], [1]]
    assert "negative variance" in strategy.history.rounds[0].rejected[1]


def flower(task, strategy=None, initial=None, mods=()):
    inner = strategy or DeterministicFedAvg(3, node_timeout=0.1)
    grid = InProcessGrid(make_client_app(lambda config: task(), mods=mods), 3)
    inner.start(grid, to_arrays(initial or task().initial(0)), num_rounds=2)
    return inner


def test_noise_on_a_variance_is_refused_by_name():
    """Flower's wrappers and mods add noise to every array; FedAvg trains on with a NaN."""
    np.random.seed(0)  # noqa: NPY002 - Flower's noise draws from it
    wrapped = DifferentialPrivacyServerSideFixedClipping(
        DeterministicFedAvg(3, node_timeout=0.1), 5.0, 3.0, 3
    )
    with pytest.raises(ValueError, match=NEGATIVE):
        flower(Shrinking, wrapped)
    strategy = flower(Shrinking, mods=(LocalDpMod(1.0, 10.0, 1.0, 1e-5),))
    reasons = [why for r in strategy.history.rounds for why in r.rejected.values()]
    assert reasons
    assert all("negative variance" in why for why in reasons)


@pytest.mark.parametrize(
    "dtype",
    [torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2, torch.complex64, torch.complex128,
     torch.uint16, torch.uint32],
    ids=str,
)  # fmt: skip
def test_what_no_array_of_flower_holds_is_named_everywhere(dtype):
    word = str(dtype).removeprefix("torch.")
    state = {"layer.w": torch.zeros(2, dtype=torch.float32).to(dtype)}
    sentence = rf"layer\.w is {word}, which Flower's arrays do not know; "
    for door in (to_arrays, npy_bytes, packed):
        with pytest.raises(TypeError, match=sentence):
            door(state)
    with pytest.raises(TypeError, match=sentence):
        from_arrays(ArrayRecord({"layer.w": Array(np.zeros(2))}), state)
    if dtype.is_complex:
        with pytest.raises(TypeError, match=sentence + "send torch.view_as_real"):
            weighted_mean({0: (state, 1.0)})


def test_other_kinds_of_tensors_are_named():
    with pytest.raises(TypeError, match="w is sparse_coo"):
        to_arrays({"w": torch.eye(2).to_sparse()})
    with pytest.raises(TypeError, match=r"w is <U1, which torch does not know"):
        state_of(ArrayRecord({"w": Array(np.array(["a"]))}))


class Wave(Shrinking):
    def initial(self, seed):
        return {"w": torch.zeros(2, dtype=torch.complex64)}


def test_a_complex_task_is_refused_before_anybody_trains():
    with pytest.raises(TypeError, match="w is complex64, which Flower's arrays do not know"):
        flower(Wave)
    with pytest.raises(TypeError, match="w is complex64"):
        federate(Wave(), 1, 2)
    record = ArrayRecord({"w": Array(np.zeros(2, np.complex64))})
    grid = InProcessGrid(make_client_app(lambda config: Wave()), 3)
    with pytest.raises(TypeError, match="w is complex64"):
        DeterministicFedAvg(3, node_timeout=0.1).start(grid, record, num_rounds=1)


@pytest.mark.parametrize("dtype", sorted(KNOWN, key=str), ids=str)
def test_the_others_travel_and_are_averaged(dtype):
    state = {"w": torch.tensor([0, 1, 1]).to(dtype), "scalar": torch.tensor(1).to(dtype)}
    there = state_of(to_arrays(state))
    assert all(torch.equal(there[k], v) and there[k].dtype == dtype for k, v in state.items())
    back = unpacked(packed(state))
    assert all(torch.equal(back[k], v) and back[k].dtype == dtype for k, v in state.items())
    mean = weighted_mean({0: (state, 1), 1: (state, 2)})
    assert all(torch.equal(mean[k], v) for k, v in state.items())


def test_replies_that_do_not_match_are_no_mean():
    with pytest.raises(ValueError, match="those of 2 differ"):
        weighted_mean({0: ({"w": torch.zeros(2, 3)}, 1), 2: ({"w": torch.zeros(3)}, 1)})
    with pytest.raises(ValueError, match="those of 1 differ"):
        weighted_mean(
            {0: ({"w": torch.zeros(2)}, 1), 1: ({"w": torch.zeros(2), "v": torch.zeros(1)}, 1)}
        )
    check_values({"a.running_var": torch.zeros(2)})


@pytest.mark.parametrize(
    "bad",
    [{"tau": 0}, {"tau": float("nan")}, {"betas": (0.9,)}, {"betas": (0.9, 1.0)}, {"lr": True},
     {"betas": (float("nan"), 0.9)}, {"rule": "FedAvg"}, {"momentum": -0.1}, {"statistics": "ema"},
     {"lr": float("inf")}],
    ids=str,
)  # fmt: skip
def test_settings_of_a_rule_are_refused_by_name(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        ServerRule(**{"rule": "fedadam", **bad})
