"""The strategy in process: deterministic, and no client can stop a round."""

import logging
import re

import numpy as np
import pytest
import torch
from flwr.app import Array
from tests.federated.grid import InProcessGrid

from surefoot.federated import (
    DeterministicFedAvg,
    MissingNodesError,
    federate,
    make_client_app,
    to_arrays,
)
from surefoot.federated.apps import strategy_settings
from surefoot.federated.strategy import EXTRA


class Drift:
    """Each client adds its seed's noise and counts its visits: cheap, and every seed matters."""

    def __init__(self, config):
        self.config = config

    def initial(self, seed):
        g = torch.Generator().manual_seed(seed)
        return {"w": torch.randn(3, 2, generator=g), "n": torch.tensor(0)}

    def train(self, state, visit):
        g = torch.Generator().manual_seed(visit.seed)
        visit.memory["visits"] = visit.memory.get("visits", torch.tensor(0)) + 1
        state["w"] += torch.randn(3, 2, generator=g) * (visit.partition + 1) / 7
        if visit.extra:
            state["w"] += visit.extra["shift"]
        state["n"] += visit.memory["visits"]
        return state, visit.partition + 1, {"loss": float(visit.server_round)}

    def evaluate(self, state):
        return {}


def run(rounds=3, partitions=4, shuffle=0, faults=None, offline=(), **settings):
    task = Drift({})
    grid = InProcessGrid(make_client_app(Drift), partitions, shuffle=shuffle, faults=faults)
    grid.offline = set(offline)
    strategy = DeterministicFedAvg(partitions, node_timeout=0.1, **settings)
    result = strategy.start(
        grid, to_arrays(task.initial(settings.get("seed", 0))), num_rounds=rounds
    )
    return strategy, result


@pytest.mark.parametrize("fraction", [1.0, 0.5])
def test_the_same_bits_whatever_the_order_and_as_the_reference(fraction):
    extra = {"shift": torch.tensor(0.25)}
    one, _ = run(shuffle=1, fraction=fraction, seed=3, extra=extra)
    two, _ = run(shuffle=2, fraction=fraction, seed=3, extra=extra)
    reference = federate(Drift({}), 3, 4, seed=3, fraction=fraction, extra=extra)
    for name, value in reference.items():
        assert torch.equal(one.state[name], value)
        assert torch.equal(two.state[name], value)
    other, _ = run(fraction=fraction, seed=4, extra=extra)
    assert not torch.equal(other.state["w"], one.state["w"])


def test_client_memory_stays_and_extra_arrays_travel_once():
    strategy, _ = run(extra={"shift": torch.tensor(1.0)})
    assert strategy.state["n"] == 1 + 2 + 3
    down = [r.bytes_down for r in strategy.report.rounds]
    assert down[0] > down[1] == down[2]
    assert all(r.bytes_up == down[1] for r in strategy.report.rounds)
    assert strategy.report.rounds[2].partitions == [0, 1, 2, 3]


def lie(change):
    def fault(server_round, partition, reply):
        if server_round == 2 and partition == 1 and not reply.has_error():
            change(reply)
        return reply

    return fault


def arrays(reply):
    return reply.content["arrays"]


LIES = {
    "extra array": (lambda r: arrays(r).update(more=Array(np.zeros(1))), r"extra \['more'\]"),
    "missing array": (lambda r: arrays(r).pop("w"), r"missing \['w'\]"),
    "shape": (lambda r: arrays(r).update(w=Array(np.zeros(2, np.float32))), "w: float32"),
    "NaN": (
        lambda r: arrays(r).update(w=Array(np.full((3, 2), np.nan, np.float32))),
        "NaN or infinity",
    ),
    "weight": (lambda r: r.content["metrics"].update({"num-examples": -3}), "positive number"),
    "infinite weight": (
        lambda r: r.content["metrics"].update({"num-examples": float("inf")}),
        "positive",
    ),
    "no weight": (lambda r: r.content["metrics"].pop("num-examples"), "positive number, got None"),
    "another's partition": (
        lambda r: r.content["metrics"].update({"partition-id": 0}),
        "claims partition 0",
    ),
    "no arrays": (lambda r: r.content.pop("arrays"), "one ArrayRecord"),
}


@pytest.mark.parametrize("what", LIES)
def test_a_lying_client_is_rejected_by_name_and_the_round_goes_on(what, caplog):
    change, reason = LIES[what]
    with caplog.at_level(logging.WARNING, "flwr"):
        strategy, result = run(faults=lie(change))
    second = strategy.report.rounds[1]
    assert second.partitions == [0, 2, 3]
    assert list(second.rejected) == [1]
    node = next(n for n, p in strategy.partition_of.items() if p == 1)
    assert second.rejected[1].startswith(f"node {node}: ")
    assert re.search(reason, second.rejected[1])
    assert strategy.report.rounds[2].partitions == [0, 1, 2, 3]
    assert torch.isfinite(strategy.state["w"]).all()
    assert result.arrays is not None


def test_an_error_and_a_silence_are_lost_by_name():
    def faults(server_round, partition, reply):
        if server_round == 2 and partition == 1:
            return "Node Unavailable"
        return None if server_round == 2 and partition == 2 else reply

    strategy, _ = run(faults=faults)
    second = strategy.report.rounds[1]
    assert second.partitions == [0, 3]
    assert "Node Unavailable" in second.lost[1]
    assert "no reply within" in second.lost[2]


def test_the_report_quotes_no_more_of_a_stranger_than_a_page():
    def faults(server_round, partition, reply):
        if partition == 1:
            return "x" * 10**5
        if partition == 2:
            reply.content["metrics"].clear()
            reply.content["metrics"].update({"num-examples": 1, "partition-id": 10**18})
        if partition == 3:
            reply.content["arrays"]["y" * 10**5] = reply.content["arrays"]["w"]
        return reply

    strategy, _ = run(rounds=1, faults=faults)
    (found,) = strategy.report.rounds
    assert found.partitions == [0]
    for reason in (found.lost[1], found.rejected[2], found.rejected[3]):
        assert len(reason) < 1100


def test_rounds_and_timeout_in_flowers_order():
    grid, seen = InProcessGrid(make_client_app(Drift), 2), []
    strategy = DeterministicFedAvg(2, node_timeout=0.1, round_timeout=50.0)
    sent = grid.send_and_receive

    def watched(messages, *, timeout=None):
        seen.append(timeout)
        return sent(messages, timeout=timeout)

    grid.send_and_receive = watched
    start = to_arrays(Drift({}).initial(0))
    strategy.start(grid, start, 1, 7.0)
    assert 7.0 in seen
    assert 50.0 not in seen
    strategy.start(grid, start, 1)
    assert 50.0 in seen


def test_a_node_that_leaves_is_named_and_one_that_never_came_ends_the_start():
    with pytest.raises(MissingNodesError, match=r"partitions \[2\] are not online after 0.1 s"):
        run(offline=[2])

    grid = InProcessGrid(make_client_app(Drift), 3)
    strategy = DeterministicFedAvg(3, node_timeout=0.1)
    sent = grid.send_and_receive

    def leave(messages, *, timeout=None):
        found = sent(messages, timeout=timeout)
        if 1 in {r.server_round for r in strategy.report.rounds}:
            grid.offline = {0}
        return found

    grid.send_and_receive = leave
    strategy.start(grid, to_arrays(Drift({}).initial(0)), num_rounds=3)
    assert [r.partitions for r in strategy.report.rounds] == [[0, 1, 2], [1, 2], [1, 2]]
    assert strategy.report.rounds[1].lost == {0: "its node is not online"}


def test_too_few_replies_leave_the_model():
    strategy, _ = run(rounds=1, faults=lambda r, p, reply: reply if p == 0 else None, min_nodes=2)
    assert torch.equal(strategy.state["w"], Drift({}).initial(0)["w"])


def test_report_on_disk(tmp_path):
    import json

    strategy, _ = run(rounds=1)
    strategy.report.write(tmp_path / "report.json")
    found = json.loads((tmp_path / "report.json").read_text())
    assert found["rounds"][0]["partitions"] == [0, 1, 2, 3]


def test_bad_settings():
    for bad in ({"num_partitions": 0}, {"num_partitions": 2, "min_nodes": 3}):
        with pytest.raises(ValueError, match="num_partitions"):
            DeterministicFedAvg(**bad)
    settings = strategy_settings({"num-partitions": 3, "fraction": 0.5, "server-rule": "fedavgm"})
    assert DeterministicFedAvg(**settings).rule.rule == "fedavgm"
    assert EXTRA == "__extra__."


def test_a_slow_node_is_asked_for_its_partition_once():
    """Two queries at once cost a simulated node the state that it wrote in between."""

    class Slow(InProcessGrid):
        answers = False
        asked = 0

        def push_messages(self, messages):
            self.asked += len(messages)
            return super().push_messages(messages)

        def pull_messages(self, message_ids):
            return super().pull_messages(message_ids) if self.answers else []

    grid = Slow(make_client_app(Drift), 3)
    strategy = DeterministicFedAvg(3, node_timeout=0.1)
    assert strategy.discover(grid, 0.0) == {}
    assert strategy.discover(grid, 0.0) == {}
    grid.answers = True
    assert sorted(strategy.discover(grid, 0.0)) == [0, 1, 2]
    assert grid.asked == 3
