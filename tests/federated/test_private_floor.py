"""What private methods need of every federation: secrets, replies of their own shape, uniform weights."""

import json

import pytest
import torch
from flwr.serverapp.strategy import DifferentialPrivacyServerSideFixedClipping
from tests.federated.grid import InProcessGrid
from tests.federated.test_strategy import Drift, run

from surefoot.errors import SurefootError
from surefoot.federated import (
    DeterministicFedAvg,
    FederationHistory,
    ServerRule,
    Visit,
    federate,
    make_client_app,
    make_server_app,
    to_arrays,
)
from surefoot.federated.apps import default_strategy
from surefoot.federated.checkpoint import why_not
from surefoot.federated.cli import _print_round
from surefoot.federated.coins import draw_secretly


class Counted:
    """A client sends one number; the state is a sum of known vectors, and counts its rounds."""

    def __init__(self, config=None):
        pass

    def initial(self, seed):
        return {"w": torch.zeros(5), "t": torch.tensor(0)}

    def reply(self, state):
        return {"c": torch.zeros((), dtype=torch.float64)}

    def merged(self, state, mean):
        g = torch.Generator().manual_seed(int(state["t"]))
        return {"w": state["w"] + mean["c"] * torch.randn(5, generator=g), "t": state["t"] + 1}

    def train(self, state, visit):
        g = torch.Generator().manual_seed(visit.seed)
        c = torch.randn((), generator=g, dtype=torch.float64) + state["w"].sum()
        return {"c": c}, visit.partition, {}

    def evaluate(self, state):
        return {}


def serve(task, rounds=3, partitions=4, shuffle=0, faults=None, **settings):
    grid = InProcessGrid(
        make_client_app(lambda c: task), partitions, shuffle=shuffle, faults=faults
    )
    strategy = DeterministicFedAvg(partitions, node_timeout=0.1, task=task, **settings)
    strategy.start(grid, to_arrays(task.initial(settings.get("seed", 0))), rounds)
    return strategy


def same(one, two):
    return set(one) == set(two) and all(torch.equal(one[k], v) for k, v in two.items())


@pytest.mark.parametrize("rule", [None, ServerRule("fedavgm", 0.5)], ids=["fedavg", "fedavgm"])
def test_a_reply_of_its_own_shape(rule):
    """The wire has what a reply is, and the state goes where the mean of the replies points."""
    rules = {"rule": rule and ServerRule(rule.rule, rule.lr)}
    found = serve(Counted(), shuffle=3, **rules)
    assert same(found.state, federate(Counted(), 3, 4, rule=rule))
    assert found.state["t"] == 3
    # 128 bytes of NumPy's header and one float64; partition 0 has no example and does not count.
    assert found.record["bytes up"].tolist() == [[4 * 136.0] * 3]
    assert [c.verdict for c in found.certificates()] == ["KEPT", "KEPT"]
    assert all(r.partitions == [1, 2, 3] for r in found.history.rounds)


def test_a_reply_of_the_states_shape_is_rejected_by_name():
    def planted(server_round, partition, reply):
        if partition == 1:
            reply.content["arrays"] = to_arrays(Counted().initial(0))
        return reply

    found = serve(Counted(), faults=planted, uniform=True)
    assert "missing ['c']" in found.history.rounds[0].rejected[1]
    # More than a reply was sent: the bytes say so.
    assert found.certificates()[0].verdict == "BROKEN"


def test_one_hook_without_the_other():
    class Half(Counted):
        merged = None

    with pytest.raises(TypeError, match="Half must have both"):
        federate(Half(), 1, 2)


def test_a_wrapper_would_take_the_replies_for_the_state():
    inner = DeterministicFedAvg(2, node_timeout=0.1, task=Counted(), uniform=True)
    around = DifferentialPrivacyServerSideFixedClipping(inner, 1.0, 1.0, 2)
    grid = InProcessGrid(make_client_app(Counted), 2)
    with pytest.raises(SurefootError, match="Counted replies with other arrays"):
        around.start(grid, to_arrays(Counted().initial(0)), num_rounds=1)


def test_uniform_weights_tell_no_number_of_examples():
    said = []

    def heard(server_round, partition, reply):
        said.append(reply.content["metrics"]["num-examples"])
        return reply

    found = serve(Counted(), faults=heard, uniform=True)
    assert set(said) == {1}
    # Partition 0, without any example, counts like the others.
    assert all(r.partitions == [0, 1, 2, 3] for r in found.history.rounds)
    assert same(found.state, federate(Counted(), 3, 4, uniform=True))
    assert found.record.fact("weighting").all == ("uniform",)
    replies = [Counted().train(Counted().initial(0), Visit(p, 4, 1, 0))[0]["c"] for p in range(4)]
    assert len(replies) == 4


def test_uniform_is_the_plain_mean_whatever_a_client_claims():
    class Numbers(Drift):
        def train(self, state, visit):
            state["w"] = torch.full((3, 2), float(visit.partition))
            return state, 1000 * visit.partition, {"loss": float(visit.partition)}

    def lying(server_round, partition, reply):
        reply.content["metrics"]["num-examples"] = 10**12
        return reply

    found = serve(Numbers({}), rounds=1, faults=lying, uniform=True)
    assert torch.equal(found.state["w"], torch.full((3, 2), 1.5))
    assert not found.history.rounds[0].rejected


def test_uniform_and_a_weight_of_ones_own():
    with pytest.raises(ValueError, match="not used with uniform"):
        DeterministicFedAvg(2, uniform=True, weighted_by_key="rows")
    with pytest.raises(ValueError, match="uniform must be"):
        default_strategy({"uniform": "yes"}, Counted())
    made = default_strategy({"uniform": True, "secret-draw": True}, Counted())
    assert (made.uniform, made.secret_draw, type(made.task)) == (True, True, Counted)


def test_a_secret_of_a_visit_does_not_follow_from_its_seed():
    one, two = Visit(0, 2, 1, seed=5), Visit(0, 2, 1, seed=5)
    draws = [torch.randn(4, generator=v.secret) for v in (one, two)]
    assert not torch.equal(*draws)
    one.note_secret("noise", "sampling")
    assert one.record.fact("secret_noise").all == one.record.fact("secret_sampling").all == (True,)
    two.secret.manual_seed(two.seed)
    two.note_secret("noise")
    assert two.record.fact("secret_noise").all == (False,)
    assert not two.record.fact("secret_sampling").all


def test_secrets_of_clients_are_facts_of_the_federation():
    class Noisy(Drift):
        def train(self, state, visit):
            if self.config.get("seeded") and visit.partition == 1:
                visit.secret.manual_seed(visit.seed)
            state["w"] += torch.randn(3, 2, generator=visit.secret)
            visit.note_secret("noise")
            return state, 1, {}

    assert serve(Noisy({})).record.fact("secret_noise").all == (True,)
    assert set(serve(Noisy({"seeded": 1})).record.fact("secret_noise").all) == {True, False}
    one, two = (serve(Noisy({})).state["w"] for _ in range(2))
    assert not torch.equal(one, two)


def test_coins_are_independent_and_there_may_be_none():
    secret = torch.Generator().manual_seed(0)
    rounds, K, q = 4000, 5, 0.3
    drawn = [draw_secretly(secret, range(K), q) for _ in range(rounds)]
    for p in range(K):
        share = sum(p in d for d in drawn) / rounds
        assert abs(share - q) < 4 * (q * (1 - q) / rounds) ** 0.5
    both = sum({0, 1} <= set(d) for d in drawn) / rounds
    assert abs(both - q * q) < 4 * (q * q * (1 - q * q) / rounds) ** 0.5
    none = (1 - q) ** K
    assert abs(sum(not d for d in drawn) / rounds - none) < 4 * (none / rounds) ** 0.5
    assert draw_secretly(secret, [3, 1], 1.0) == [1, 3]


def test_a_secret_draw_equals_the_loop_on_the_same_coins():
    def coins():
        return torch.Generator().manual_seed(1)

    found = serve(Drift({}), 6, fraction=0.4, secret_draw=True, secret=coins(), seed=2)
    alone = federate(Drift({}), 6, 4, fraction=0.4, secret_draw=True, secret=coins(), seed=2)
    assert same(found.state, alone)
    counts = [len(r.partitions) for r in found.history.rounds]
    assert 0 in counts  # min_nodes fills nothing up: that would be no coin
    for record in (found.record, alone.record):
        assert record.fact("secret_sampling").all == (False,)


def test_who_was_drawn_secretly_stands_in_no_record_and_no_file(tmp_path):
    out = tmp_path / "final.safetensors"
    settings = {
        "num-partitions": 4, "num-server-rounds": 3, "fraction": 0.6, "secret-draw": True,
        "node-timeout": 0.1, "out": str(out),
    }  # fmt: skip
    grid = InProcessGrid(make_client_app(Drift), 4)
    seen = []
    app = make_server_app(Drift, None, settings, done=lambda s, history: seen.append(history))
    from flwr.app import Context, RecordDict

    app(grid, Context(1, 1, {}, RecordDict(), {}))
    (history,) = seen
    assert any(r.partitions for r in history.rounds)
    assert history.record.fact("secret_sampling").all == (True,)
    assert not {"participants", "bytes up", "lost"} & set(history.record.quantities)
    told = json.loads((tmp_path / "final.safetensors.json").read_text())
    assert told["rounds"] == [{"server_round": t} for t in (1, 2, 3)]
    lines = (tmp_path / "final.safetensors.rounds").read_text().splitlines()
    assert all(set(json.loads(line)) == {"server_round", "metrics"} for line in lines)
    assert "would say how many" in history.certificates()[0].reason
    assert "secret" in why_not(DeterministicFedAvg(2, secret_draw=True), around=False)


def test_a_round_of_a_secret_draw_is_printed_without_names(capsys):
    _print_round({"server_round": 2, "metrics": {"accuracy": 0.5}})
    assert capsys.readouterr().out == "round 2: who took part is secret, accuracy 0.5000\n"


def test_a_history_has_its_certificates():
    strategy, _ = run()
    assert [c.to_dict() for c in strategy.history.certificates()] == [
        c.to_dict() for c in strategy.certificates()
    ]
    assert FederationHistory().certificates()[0].verdict == "UNDECIDED"
