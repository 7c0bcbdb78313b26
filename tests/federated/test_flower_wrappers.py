"""Inside Flower's wrappers and mods: the numbers of its FedAvg, and what is kept is what came back."""

import logging

import numpy as np
import pytest
import torch
from flwr.app import ArrayRecord, ConfigRecord
from flwr.clientapp.mod import LocalDpMod, adaptiveclipping_mod, fixedclipping_mod, message_size_mod
from flwr.serverapp.strategy import (
    DifferentialPrivacyClientSideAdaptiveClipping,
    DifferentialPrivacyClientSideFixedClipping,
    DifferentialPrivacyServerSideAdaptiveClipping,
    DifferentialPrivacyServerSideFixedClipping,
    FedAdagrad,
    FedAdam,
    FedAvg,
    FedAvgM,
    FedYogi,
)
from safetensors.torch import load_file
from tests.federated.grid import InProcessGrid
from tests.federated.test_strategy import Drift

from surefoot.errors import SurefootError
from surefoot.federated import (
    DeterministicFedAvg,
    MissingNodesError,
    ServerRule,
    federate,
    make_client_app,
    make_server_app,
    to_arrays,
)
from surefoot.federated.records import state_of
from surefoot.lora.doors.flower import RacSettings, RacStrategy, rac_client_app

N = 3
SHIFT = {"shift": torch.tensor(0.25)}


class Floats(Drift):
    """As Drift, without the counter, of which FedAvg takes a mean."""

    def initial(self, seed):
        return {"w": super().initial(seed)["w"], "b": torch.zeros(5, dtype=torch.float64)}

    def train(self, state, visit):
        g = torch.Generator().manual_seed(visit.seed)
        state["w"] += torch.randn(3, 2, generator=g) * (visit.partition + 1)
        state["b"] += visit.server_round
        if visit.extra:
            state["w"] += visit.extra["shift"]
        return state, visit.partition + 1, {"loss": float(visit.partition)}


def flower(strategy, mods=(), rounds=3, task=Floats, **settings):
    np.random.seed(0)  # noqa: NPY002 - Flower's noise draws from it
    grid = InProcessGrid(make_client_app(task, mods=mods), N)
    return strategy.start(
        grid,
        to_arrays(task({}).initial(0)),
        num_rounds=rounds,
        train_config=ConfigRecord({"seed": 0}),
        **settings,
    )


def ours(**settings):
    return DeterministicFedAvg(N, **{"node_timeout": 0.1, **settings})


def theirs(kind=FedAvg, **settings):
    return kind(min_train_nodes=N, min_available_nodes=N, fraction_evaluate=0.0, **settings)


def close(one, two, rel=1e-6):
    one, two = state_of(one), state_of(two)
    assert set(one) == set(two) == {"w", "b"}
    for name, value in one.items():
        torch.testing.assert_close(value, two[name].to(value.dtype), rtol=rel, atol=1e-6)


WRAPPERS = {
    "server, fixed": (DifferentialPrivacyServerSideFixedClipping, (0.5, 0.7, N), ()),
    "server, adaptive": (DifferentialPrivacyServerSideAdaptiveClipping, (0.05, N, 0.7), ()),
    "client, fixed": (DifferentialPrivacyClientSideFixedClipping, (0.5, 0.7, N), (fixedclipping_mod,)),
    "client, adaptive": (
        DifferentialPrivacyClientSideAdaptiveClipping, (0.05, N, 0.7), (adaptiveclipping_mod,),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WRAPPERS)
@pytest.mark.parametrize("extra", [None, SHIFT], ids=["", "extra arrays"])
def test_under_a_wrapper_the_numbers_are_those_of_fed_avg(name, extra):
    wrapper, settings, mods = WRAPPERS[name]
    inner = ours(extra=extra)
    found = flower(wrapper(inner, *settings), mods)
    expected = flower(wrapper(theirs(), *settings), mods, task=Floats if extra is None else Shifted)
    close(found.arrays, expected.arrays)
    assert all(r.partitions == [0, 1, 2] and not r.rejected for r in inner.history.rounds)
    assert [found.train_metrics_clientapp[r]["loss"] for r in (1, 2, 3)] == pytest.approx(
        [expected.train_metrics_clientapp[r]["loss"] for r in (1, 2, 3)]
    )


class Shifted(Floats):
    """What the extra arrays do, without them."""

    def train(self, state, visit):
        visit.extra = dict(SHIFT)
        return super().train(state, visit)


def local_dp(message, context, call_next):
    """Flower's own, with draws that do not depend on who is asked first."""
    np.random.seed(context.node_config["partition-id"])  # noqa: NPY002
    return LocalDpMod(0.7, 0.01, 1.0, 1e-5)(message, context, call_next)


@pytest.mark.parametrize("mods", [(local_dp,), (message_size_mod,)])
def test_under_a_mod_the_numbers_are_those_of_fed_avg(mods):
    inner = ours(extra=SHIFT)
    close(flower(inner, mods).arrays, flower(theirs(), mods, task=Shifted).arrays, rel=1e-6)
    assert all(r.partitions == [0, 1, 2] for r in inner.history.rounds)
    bytes_down = [c for c in inner.certificates() if c.quantity == "bytes down"]
    assert [str(c.verdict) for c in bytes_down] == ["KEPT"]


@pytest.mark.parametrize(
    ("rule", "kind", "settings"),
    [
        (ServerRule("fedavg"), FedAvg, {}),
        (ServerRule("fedavg", 0.5), FedAvgM, {"server_learning_rate": 0.5}),
        (ServerRule("fedavgm", 0.5), FedAvgM, {"server_learning_rate": 0.5, "server_momentum": 0.9}),
        (ServerRule("fedyogi", 0.1), FedYogi, {"eta": 0.1}),
        (ServerRule("fedadagrad", 0.1, betas=(0.0, 0.0)), FedAdagrad, {"eta": 0.1}),
    ],
    ids=["fedavg", "fedavg at 0.5", "fedavgm", "fedyogi", "fedadagrad"],
)  # fmt: skip
def test_the_rules_are_those_of_flower(rule, kind, settings):
    close(flower(ours(rule=rule)).arrays, flower(theirs(kind, **settings)).arrays, rel=1e-5)


def test_adam_is_flowers_without_bias_correction():
    """Flower's FedAdam corrects the step by sqrt(1 - b2^t) / (1 - b1^t); the paper's does not."""
    settings = {"eta": 0.1, "beta_1": 0.9, "beta_2": 0.99}
    found = state_of(flower(ours(rule=ServerRule("fedadam", 0.1)), rounds=1).arrays)
    expected = state_of(flower(theirs(FedAdam, **settings), rounds=1).arrays)
    start = Floats({}).initial(0)["w"]
    ratio = (expected["w"] - start) / (found["w"] - start)
    assert ratio.flatten().tolist() == pytest.approx([ratio[0, 0].item()] * 6, rel=1e-3)


KEYS = {"weighted_by_key": "n", "arrayrecord_key": "model", "configrecord_key": "settings"}


def test_the_keywords_of_fed_avg_are_taken():
    seen = []

    def aggregate(contents, key):
        seen.append([c["metrics"]["partition-id"] for c in contents])
        return next(iter(contents[0].metric_records.values()))

    strategy = ours(
        fraction_train=1.0, train_metrics_aggr_fn=aggregate, fraction_evaluate=0.0, **KEYS
    )
    close(flower(strategy).arrays, flower(ours()).arrays)
    assert seen == [[0, 1, 2]] * 3
    half = DeterministicFedAvg(4, fraction_train=0.5)
    assert half.fraction == half.fraction_train == 0.5


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"min_train_nodes": 2}, ValueError), ({"min_available_nodes": 2}, ValueError),
        ({"fraction_evaluate": 1.0}, ValueError), ({"min_evaluate_nodes": 2}, ValueError),
        ({"evaluate_metrics_aggr_fn": max}, ValueError), ({"weighted_by_key": ""}, ValueError),
        ({"fraction_train": 0.0}, ValueError), ({"fraction": float("nan")}, ValueError),
        ({"fraction": 0.5, "fraction_train": 0.25}, ValueError), ({"min_nodes": True}, ValueError),
        ({"node_timeout": float("nan")}, ValueError), ({"round_timeout": 0}, ValueError),
        ({"seed": 1.5}, ValueError), ({"fraction_fit": 1.0}, TypeError),
    ],
    ids=str,
)  # fmt: skip
def test_the_others_are_refused_by_name(given, error):
    with pytest.raises(error, match=next(iter(given))):
        ours(**given)


def test_lists_among_the_metrics_are_averaged_as_flower_averages_them():
    class Lists(Floats):
        def train(self, state, visit):
            state, n, _ = super().train(state, visit)
            return state, n, {"by class": [float(visit.partition), 1.0]}

    found, expected = flower(ours(), task=Lists), flower(theirs(), task=Lists)
    for r in (1, 2, 3):
        assert found.train_metrics_clientapp[r]["by class"] == pytest.approx(
            expected.train_metrics_clientapp[r]["by class"]
        )


class Noisy(DeterministicFedAvg):
    """Adds 1 to whatever the rule gives."""

    def aggregate_train(self, server_round, replies):
        arrays, metrics = super().aggregate_train(server_round, replies)
        return to_arrays({k: v + 1 for k, v in state_of(arrays).items()}), metrics


def noisy(kind):
    if kind == "subclass":
        return Noisy(N, node_timeout=0.1)
    wrapper, settings, _ = WRAPPERS["server, fixed"]
    return wrapper(ours(), *settings)


@pytest.mark.parametrize("kind", ["subclass", "wrapper"])
def test_what_is_saved_is_what_was_returned(kind, tmp_path):
    np.random.seed(0)  # noqa: NPY002 - Flower's noise draws from it
    results, kept = [], {}
    strategy = noisy(kind)
    start = strategy.start

    def keep(*args, **kwargs):
        results.append(start(*args, **kwargs))
        return results[0]

    strategy.start = keep
    out = tmp_path / "final.safetensors"
    app = make_server_app(
        Floats, lambda config, task: strategy, {"out": str(out), "num-server-rounds": 2},
        done=lambda state, history: kept.update(state=state, history=history),
    )  # fmt: skip
    grid = InProcessGrid(make_client_app(Floats), N)
    app(grid, next(iter(grid.contexts.values())))
    returned = state_of(results[0].arrays)
    for state in (load_file(out), kept["state"]):
        assert all(torch.equal(state[k], v) for k, v in returned.items())
    plain = federate(Floats({}), 2, N)
    assert not torch.allclose(plain["w"], returned["w"], atol=0.05)
    # The theorem of linear servers may not rest on the rule's name.
    assert len(kept["history"].record.fact("server").all) > 1


def test_no_attribute_keeps_the_mean_before_the_noise():
    strategy = Noisy(N, node_timeout=0.1)
    result = flower(strategy, rounds=1)
    hidden = federate(Floats({}), 1, N)["w"]

    def tensors(thing, depth=0):
        if isinstance(thing, torch.Tensor):
            yield thing
        elif isinstance(thing, ArrayRecord):
            yield from state_of(thing).values()
        elif isinstance(thing, dict):
            for value in thing.values():
                yield from tensors(value, depth + 1)
        elif hasattr(thing, "__dict__") and depth < 4:
            yield from tensors(vars(thing), depth + 1)

    assert torch.equal(strategy.state["w"], state_of(result.arrays)["w"])
    found = [t for t in tensors(vars(strategy)) if t.shape == hidden.shape]
    assert found
    assert not any(torch.allclose(t.float(), hidden) for t in found)


def test_a_change_is_noted_and_no_change_is_not():
    strategy, plain = Noisy(N, node_timeout=0.1), ours()
    flower(strategy, rounds=1)
    flower(plain)
    assert [str(v)[:7] for v in strategy.record.fact("server").all] == ["fedavg", "unknown"]
    assert plain.record.fact("server").all == ("fedavg",)
    modded = ours()
    flower(modded, (LocalDpMod(0.7, 0.01, 1.0, 1e-5),))
    assert "LocalDpMod" in str(modded.record.fact("client").all)


def test_a_wrapper_that_is_none_is_refused():
    app = make_server_app(Floats, lambda config, task: theirs())
    grid = InProcessGrid(make_client_app(Floats), N)
    with pytest.raises(TypeError, match="make_strategy must return a DeterministicFedAvg"):
        app(grid, next(iter(grid.contexts.values())))


def test_a_run_whose_every_reply_is_rejected_is_no_result():
    def nan(server_round, partition, reply):
        reply.content["metrics"]["num-examples"] = -1
        return reply

    grid = InProcessGrid(make_client_app(Floats), N, faults=nan)
    with pytest.raises(SurefootError, match="no reply of any round fitted.*num-examples must be"):
        ours().start(grid, to_arrays(Floats({}).initial(0)), num_rounds=2)


def test_nodes_that_cannot_say_their_partition_are_named():
    from flwr.clientapp import ClientApp

    grid = InProcessGrid(ClientApp(mods=[fixedclipping_mod]), N)
    with pytest.raises(MissingNodesError, match="did not say its partition"):
        ours().start(grid, to_arrays(Floats({}).initial(0)), num_rounds=1)


class Matrix:
    def __init__(self, config=None):
        pass

    def initial(self, seed):
        return {"a": torch.zeros(4, 5)}

    def loss(self, weights, visit, step):
        return ((weights["a"] - visit.partition) ** 2).sum()

    def examples(self, visit):
        return 1

    def evaluate(self, weights):
        return {}


def test_factors_refuse_a_wrapper_and_follow_a_noised_state():
    inner = RacStrategy(N, RacSettings(2, 0.1), node_timeout=0.1)
    grid = InProcessGrid(rac_client_app(Matrix), N)
    initial = to_arrays(Matrix().initial(0))
    with pytest.raises(SurefootError, match="cannot run inside another strategy"):
        DifferentialPrivacyServerSideFixedClipping(inner, 0.1, 1.0, N).start(grid, initial)

    class NoisyFactors(RacStrategy):
        def aggregate_train(self, server_round, replies):
            arrays, metrics = super().aggregate_train(server_round, replies)
            return to_arrays({k: v + 1 for k, v in state_of(arrays).items()}), metrics

    strategy = NoisyFactors(N, RacSettings(2, 0.1), node_timeout=0.1)
    grid = InProcessGrid(rac_client_app(Matrix), N)
    result = strategy.start(grid, initial, num_rounds=3)
    # Every node holds the noised matrices of the last round's start: those that it would merge into.
    held = [state_of(c.state["surefoot-rac"])["a"] for c in grid.contexts.values()]
    assert strategy.full == 3 * N
    assert all(torch.equal(held[0], other) for other in held)
    assert held[0].mean() > 1.9
    assert torch.equal(strategy.state["a"], state_of(result.arrays)["a"])


@pytest.fixture(autouse=True)
def quiet(caplog):
    caplog.set_level(logging.ERROR, "flwr")
