"""A federation that was killed goes on from its last round: the bits, history and certificates of one run."""

import hashlib
import json

import pytest
import torch
from flwr.app import Context, RecordDict
from tests.federated.grid import InProcessGrid

from surefoot._sealed.tensors import read_tensors, write_tensors
from surefoot.errors import FileFormatError, SurefootError
from surefoot.federated import DeterministicFedAvg, ServerRule, make_client_app, make_server_app
from surefoot.federated.apps import default_strategy, strategy_settings
from surefoot.federated.following import Rounds

PARTITIONS = 4


class Walk:
    """Each client takes a step of its own; partition 2 claims ever more examples from round 3 on."""

    def __init__(self, config):
        self.config = config

    def initial(self, seed):
        return {"w": torch.zeros(3, 2), "n": torch.tensor(0)}

    def train(self, state, visit):
        g = torch.Generator().manual_seed(visit.seed)
        state["w"] += torch.randn(3, 2, generator=g) * (visit.partition + 1) / 7
        state["n"] += 1
        visit.record.note(client="sgd")
        if self.config.get("memory"):
            visit.memory["kept"] = torch.ones(1)
        examples = 10 * visit.partition + 1
        if visit.partition == 2 and visit.server_round >= 3:
            examples *= visit.server_round
        return state, examples, {"loss": float(visit.server_round)}

    def evaluate(self, state):
        return {"norm": float(state["w"].norm())}


class Killed(Exception):
    """Stands for the end of the process."""


def serve(folder, make_strategy=None, killed_in=None, shuffle=0, **config):
    """Run the server of a federation; (arrays, what its JSON says)."""
    out = folder / "final.safetensors"
    config = {
        "num-partitions": PARTITIONS, "num-server-rounds": 5, "fraction": 0.5, "node-timeout": 0.1,
        "server-rule": "fedavgm", "server-lr": 0.5, "seed": 7, "out": str(out),
        "checkpoint": str(folder / "checkpoint"), **config,
    }  # fmt: skip

    def faults(server_round, partition, reply):
        if server_round == killed_in:
            raise Killed
        return reply

    client = make_client_app(Walk, {"memory": config.pop("memory", False)})
    grid = InProcessGrid(client, PARTITIONS, shuffle=shuffle, faults=faults)
    app = make_server_app(Walk, make_strategy)
    app(grid, Context(1, 1, {}, RecordDict(), config))
    return read_tensors(out).tensors, json.loads((folder / "final.safetensors.json").read_text())


@pytest.fixture
def apart(tmp_path):
    """A folder a run."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    return tmp_path / "one", tmp_path / "two"


@pytest.mark.parametrize("rule", ["fedavg", "fedavgm", "fedyogi"])
@pytest.mark.parametrize("killed", [2, 4])
def test_a_killed_run_ends_as_an_undisturbed_one(apart, rule, killed):
    whole, said = serve(apart[0], **{"server-rule": rule})
    with pytest.raises(Killed):
        serve(apart[1], killed_in=killed, shuffle=1, **{"server-rule": rule})
    assert not (apart[1] / "final.safetensors").exists()
    went_on, said_too = serve(apart[1], resume=True, shuffle=2, **{"server-rule": rule})
    for name, tensor in whole.items():
        assert torch.equal(went_on[name], tensor)
    # The ids of nodes, which stand in reasons, are another grid's.
    for each in (said, said_too):
        for found in each["rounds"]:
            found["rejected"] = {p: why.split(": ")[1] for p, why in found["rejected"].items()}
    assert any(found["rejected"] for found in said["rounds"])
    assert said_too == said
    assert [found["server_round"] for found in said_too["rounds"]] == [1, 2, 3, 4, 5]


def test_more_rounds_than_were_asked_for_at_first(apart):
    whole, _ = serve(apart[0], **{"num-server-rounds": 4})
    serve(apart[1], **{"num-server-rounds": 2})
    went_on, _ = serve(apart[1], resume=True, **{"num-server-rounds": 4})
    assert torch.equal(whole["w"], went_on["w"])
    again, _ = serve(apart[1], resume=True, **{"num-server-rounds": 4})
    assert torch.equal(whole["w"], again["w"])
    with pytest.raises(
        SurefootError, match="4 rounds are done already, and num-server-rounds is 3"
    ):
        serve(apart[1], resume=True, **{"num-server-rounds": 3})


def test_other_settings_are_refused_by_name(apart):
    serve(apart[0], **{"num-server-rounds": 1})
    with pytest.raises(SurefootError, match=r"run with seed = 7, and this one has 8.*start anew"):
        serve(apart[0], resume=True, seed=8)
    with pytest.raises(SurefootError, match="server-lr = 0.5, and this one has 0.25"):
        serve(apart[0], resume=True, **{"server-lr": 0.25})
    serve(apart[0], resume=True, **{"round-timeout": 77.0})


def test_what_clients_kept_is_lost_with_them(apart):
    serve(apart[0], memory=True, **{"num-server-rounds": 1})
    with pytest.raises(SurefootError, match=r"its clients kept something between rounds"):
        serve(apart[0], memory=True, resume=True)


class Own(DeterministicFedAvg):
    """Keeps more than the arrays."""

    def combine(self, server_round, good):
        return super().combine(server_round, good)


class OwnRule(ServerRule):
    """Nothing is known of it."""


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda c, t: Own(**strategy_settings(c)), "Own keeps more than the arrays of a round"),
        (
            lambda c, t: DeterministicFedAvg(**strategy_settings(c) | {"rule": OwnRule()}),
            "OwnRule may keep a state of its own",
        ),
    ],
)
def test_strategies_with_a_state_of_their_own_are_refused(apart, make, why):
    serve(apart[0], make, **{"num-server-rounds": 1})
    assert not (apart[0] / "checkpoint").exists()
    with pytest.raises(SurefootError, match=f"resume is not possible: {why}"):
        serve(apart[0], make, resume=True)


def test_a_strategy_around_it_is_refused(apart):
    from flwr.serverapp.strategy import DifferentialPrivacyServerSideFixedClipping

    def make(config, task):
        inner = default_strategy(config | {"server-rule": "fedavg", "server-lr": 1.0}, task)
        return DifferentialPrivacyServerSideFixedClipping(inner, 0.0, 1e6, PARTITIONS)

    with pytest.raises(SurefootError, match="a strategy around it has a state of its own"):
        serve(apart[0], make, resume=True)


def test_resume_without_a_file_and_no_switch_are_refused(apart):
    with pytest.raises(SurefootError, match="resume needs checkpoint"):
        serve(apart[0], resume=True, checkpoint="")
    with pytest.raises(ValueError, match="resume must be one of True, False, got 'false'"):
        serve(apart[0], resume="false")


def test_any_damage_of_the_checkpoint_is_an_error_with_its_name(apart):
    serve(apart[0], **{"num-server-rounds": 1})
    path = apart[0] / "checkpoint"
    whole = path.read_bytes()
    generator = torch.Generator().manual_seed(0)
    for _ in range(40):
        at = int(torch.randint(len(whole), (1,), generator=generator))
        bit = 1 << int(torch.randint(8, (1,), generator=generator))
        path.write_bytes(whole[:at] + bytes([whole[at] ^ bit]) + whole[at + 1 :])
        with pytest.raises(FileFormatError, match="checkpoint"):
            serve(apart[0], resume=True)
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(FileFormatError, match="checkpoint"):
        serve(apart[0], resume=True)
    write_tensors(path, {"state/w": torch.zeros(3, 2)}, {"federation": "{}"})
    with pytest.raises(FileFormatError, match="is no state of a federation"):
        serve(apart[0], resume=True)


def test_the_result_carries_its_digest_and_its_report_that_of_the_file(apart):
    _, said = serve(apart[0], **{"num-server-rounds": 1})
    out = apart[0] / "final.safetensors"
    assert said["sha256"] == hashlib.sha256(out.read_bytes()).hexdigest()
    assert read_tensors(out).sealed
    flipped = bytearray(out.read_bytes())
    flipped[-3] ^= 4
    out.write_bytes(flipped)
    with pytest.raises(FileFormatError, match="is not what was written"):
        read_tensors(out)


def test_rounds_are_told_as_they_end(apart):
    """Each once, when its line is whole."""
    told = []
    path = apart[0] / "final.safetensors.rounds"
    rounds = Rounds(path, told.append)
    rounds.look()
    serve(apart[0], **{"num-server-rounds": 2})
    rounds.look()
    rounds.look()
    assert [found["server_round"] for found in told] == [1, 2]
    assert told[0]["metrics"].keys() == {"norm"}
    with path.open("a") as file:
        file.write('{"server_round": 3')
    rounds.look()
    assert len(told) == 2
    with path.open("a") as file:
        file.write("}\n")
    rounds.look()
    assert told[-1] == {"server_round": 3}
