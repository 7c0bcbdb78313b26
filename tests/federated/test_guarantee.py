"""What the record of a federation holds, and its certificates."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from flwr.app import Array, ConfigRecord, RecordDict
from tests.federated.grid import InProcessGrid
from tests.federated.test_strategy import Drift, arrays, lie, run

from surefoot import Record, certify
from surefoot.cli import main
from surefoot.federated import (
    DeterministicFedAvg,
    FederationHistory,
    ServerRule,
    Visit,
    federate,
    launcher,
    make_client_app,
    to_arrays,
    wire_bytes,
)
from surefoot.federated._payload import npy_bytes, packed
from surefoot.federated.guarantee import downlink, uplink
from surefoot.federated.records import MOST_BYTES, facts_record, read_facts
from surefoot.federated.rounds import MOST, UNSAID, VARIES, FederationReport
from surefoot.guarantee import assume_fact

APP = Path(__file__).parents[2] / "apps" / "repopt"


def verdicts(thing):
    return {c.quantity: str(c.verdict) for c in thing.certificates()}


def test_rounds_are_in_the_record_and_bytes_are_exact():
    strategy, _ = run(seed=3, fraction=0.5, extra={"shift": torch.tensor(1.0)})
    record = strategy.record
    assert record.seeds == [3]
    assert record["participants"].tolist() == [[2.0, 2.0, 2.0]]
    for name, of in (("bytes up", "bytes_up"), ("bytes down", "bytes_down")):
        assert record[name].tolist() == [[getattr(r, of) for r in strategy.report.rounds]]
    assert verdicts(strategy) == {"bytes up": "KEPT", "bytes down": "KEPT"}
    for certificate in strategy.certificates():
        assert set(certificate.ratio) == {1.0}
    facts = {k: v.all for k, v in record.facts.items()}
    assert facts == {
        "runtime": ("flower",), "num_partitions": (4,), "fraction": (0.5,), "min_nodes": (1,),
        "server": ("fedavg",), "server_lr": (1.0,), "server_momentum": (0.0,),
        "weighting": ("examples",), "memory": ("kept by clients",),
    }  # fmt: skip


@pytest.mark.parametrize("shape", [(), (3,), (0, 4), (2, 3, 4, 5)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int64, torch.bool])
def test_bytes_that_were_counted_are_those_that_travel(shape, dtype):
    state = {"a": torch.zeros(shape, dtype=dtype), "b": torch.zeros(2)}
    assert npy_bytes(state) == wire_bytes(to_arrays(state))


def test_a_client_that_sends_more_breaks_the_uplink():
    strategy, _ = run(faults=lie(lambda r: arrays(r).update(more=Array(np.zeros(1)))))
    assert verdicts(strategy) == {"bytes up": "BROKEN", "bytes down": "KEPT"}
    assert strategy.record["rejected"].tolist() == [[0.0, 1.0, 0.0]]
    assert strategy.record.fact("rejected").all == (1,)


def test_a_server_that_sends_extra_arrays_every_round_breaks_the_downlink(monkeypatch):
    class Forgetful(DeterministicFedAvg):
        """The planted fault: it sends what its nodes have, and believes that it does not."""

        def configure_train(self, server_round, arrays, config, grid):
            messages = list(super().configure_train(server_round, arrays, config, grid))
            for message in messages:
                message.content["config"]["__extra__.shift"] = packed(
                    {"s": torch.ones(1, dtype=torch.float64)}
                )["__extra__.s"]
                self.history.round(server_round).bytes_down += 136
            return messages

    strategy = Forgetful(3, node_timeout=0.1)
    task = Drift({})
    grid = InProcessGrid(make_client_app(Drift), 3)
    strategy.start(grid, to_arrays(task.initial(0)), num_rounds=2)
    assert verdicts(strategy)["bytes down"] == "BROKEN"


def test_who_was_lost_is_a_fact():
    strategy, _ = run(faults=lambda r, p, reply: None if (r, p) == (2, 3) else reply)
    assert strategy.record.fact("lost").all == (3,)
    assert strategy.record["lost"].tolist() == [[0.0, 1.0, 0.0]]
    assert strategy.record["participants"].tolist() == [[4.0, 3.0, 4.0]]


def test_the_reference_loop_keeps_the_same_record_and_says_what_it_cannot_measure():
    state = federate(Drift({}), 3, 4, seed=2, fraction=0.5, rule=ServerRule("fedavgm", 0.5))
    strategy, _ = run(seed=2, fraction=0.5, rule=ServerRule("fedavgm", 0.5))
    assert all(torch.equal(strategy.state[k], v) for k, v in state.items())
    ours, theirs = state.record, strategy.record
    assert ours["participants"].tolist() == theirs["participants"].tolist()
    for name in ("server", "server_lr", "server_momentum", "weighting", "fraction"):
        assert ours.fact(name).all == theirs.fact(name).all
    assert ours.fact("server_momentum").all == (0.9,)
    assert verdicts(state) == {"bytes up": "UNDECIDED", "bytes down": "UNDECIDED"}
    assert "nothing travels" in state.certificates()[0].reason
    for promise in (uplink(), downlink()):
        assert promise.quantity not in ours


def test_a_given_record_is_the_one_that_is_written():
    record = Record()
    assert federate(Drift({}), 1, 2, record=record).record is record
    assert record["participants"].tolist() == [[2.0]]


class Honest(Drift):
    """Says how it trains; partition 1 is silent where the configuration wants it."""

    def train(self, state, visit):
        if not (self.config.get("silent") and visit.partition == 1):
            visit.record.note(client="sgd", lr=0.1 * (visit.partition + 1), server="krum")
        return super().train(state, visit)


@pytest.mark.parametrize("flower", [True, False])
@pytest.mark.parametrize("silent", [True, False])
def test_one_silent_client_leaves_a_condition_open(flower, silent):
    task = Honest({"silent": silent})
    if flower:
        strategy = DeterministicFedAvg(3, node_timeout=0.1)
        grid = InProcessGrid(make_client_app(lambda config: task), 3)
        strategy.start(grid, to_arrays(task.initial(0)), num_rounds=2)
        record = strategy.record
    else:
        record = federate(task, 2, 3).record
    assert record.fact("client").all == (("sgd", UNSAID) if silent else ("sgd",))
    rates = (0.1, 0.30000000000000004) if silent else (0.1, 0.2, 0.30000000000000004)
    assert [v for v in record.fact("lr").all if v != UNSAID] == list(rates)
    # Of the server, the server speaks.
    assert record.fact("server").all == ("fedavg",)
    found = assume_fact(record, "client", "linear", "sgd", lambda v: v == "sgd")
    assert found.holds is (not silent)


def test_a_client_that_says_ever_more_is_cut_short():
    history = FederationHistory()
    history.hear({"lr": [float(i) for i in range(MOST + 5)]})
    assert len(history.record.fact("lr").all) == MOST + 1
    assert history.record.fact("lr").all[-1] == VARIES


@pytest.mark.parametrize(
    "text",
    [
        "[1]",
        '{"a": 1}',
        '{"a": [null]}',
        '{"a": [NaN]}',
        "{",
        "[" * 9000,
        '{"a": [1' + "0" * 400 + "]}",
        '{"a": [' + "1" * 5000 + "]}",
        '{"a": ["' + "x" * MOST_BYTES + '"]}',
    ],
)
def test_facts_that_are_none_are_rejected_by_name(text):
    def planted(reply):
        reply.content["facts"] = ConfigRecord({"json": text})

    strategy, _ = run(faults=lie(planted))
    assert list(strategy.report.rounds[1].rejected) == [1]
    assert strategy.report.rounds[1].partitions == [0, 2, 3]


def test_facts_travel_there_and_back():
    visit = Visit(0, 1, 1, 0)
    assert facts_record(visit.record) is None
    visit.record.note(a=True, b=0.5)
    visit.record.note(b="word")
    content = RecordDict({"facts": facts_record(visit.record)})
    assert read_facts(content) == {"a": [True], "b": [0.5, "word"]}
    assert read_facts(RecordDict({})) == {}


def test_a_rule_of_ones_own_is_unknown():
    class Mine(ServerRule):
        def apply(self, old, mean):
            return old

    strategy, _ = run(rule=Mine())
    assert strategy.record.fact("server").all == ("unknown (Mine)",)


def test_the_file_of_a_run_keeps_its_entries(tmp_path):
    strategy, _ = run(rounds=1)
    made = [c.to_dict() for c in strategy.certificates()]
    strategy.report.write(tmp_path / "report.json", certificates=made)
    found = json.loads((tmp_path / "report.json").read_text())
    assert set(found) == {"rounds", "metrics", "facts", "certificates"}
    assert set(found["rounds"][0]) == {
        "server_round", "partitions", "lost", "rejected", "bytes_down", "bytes_up",
    }  # fmt: skip
    assert found["facts"]["server"] == ["fedavg"]
    assert FederationReport is FederationHistory


def test_theorems_of_a_task_are_among_the_certificates_of_its_runs():
    promised = uplink()

    class Promising(Drift):
        def theorems(self):
            return [(promised, "look")]

    state = federate(Promising({}), 1, 2)
    assert next(c.reason for c in state.certificates()) == "bytes up was not measured: look"
    assert certify(run()[0].record, promised).verdict == "KEPT"


def test_without_flower_there_is_one_sentence():
    bodies = [
        "from surefoot.federated import to_arrays",
        "from surefoot.federated import DeterministicFedAvg",
        "from surefoot.federated import make_server_app",
        "from surefoot.reparam import RepOptStrategy",
        "import surefoot.reparam.strategy",
    ]
    script = f"""
import sys
sys.modules["flwr"] = None
from surefoot.errors import MissingExtraError
for body in {bodies!r}:
    try:
        exec(body, {{}})
    except MissingExtraError as error:
        print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    lines = done.stdout.splitlines()
    assert len(lines) == len(bodies)
    for line in lines:
        assert line.count("needs flwr, which is not installed") == 1
        assert line.endswith("run: pip install 'surefoot[federated]'")


def test_without_flower_the_study_and_the_reference_work(tmp_path):
    script = """
import sys
sys.modules["flwr"] = sys.modules["safetensors"] = sys.modules["cryptography"] = None
from surefoot.reparam.study import STUDY
from surefoot.reparam import RepOptTask, federate_beside, RepSGD, Scales
from surefoot.federated import federate, ServerRule, lda_partition
from surefoot.cli import main
Scales({}).save("kept")
print(dict(Scales.load("kept")))
raise SystemExit(main(["federate", "simulate", "repopt"]))
"""
    (tmp_path / "repopt").mkdir()
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.stdout == "{}\n"
    assert done.returncode == 2
    assert done.stderr == (
        "error: surefoot federate needs cryptography, which is not installed; "
        "run: pip install 'surefoot[federated]'\n"
    )


def test_without_flowers_commands_a_federation_is_one_sentence(monkeypatch, capsys):
    monkeypatch.setattr(launcher.shutil, "which", lambda *args, **kwargs: None)
    assert main(["federate", "simulate", str(APP)]) == 2
    assert capsys.readouterr().err == (
        "error: surefoot federate needs flwr, which is not installed; "
        "run: pip install 'surefoot[federated]'\n"
    )
