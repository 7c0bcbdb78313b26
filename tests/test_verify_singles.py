"""Verdicts of what is run once and is no study: reached anew from its record, as those of a study."""

import json
import math

import pytest
import torch
from tests.test_verify import relist
from torch import nn

from surefoot import watch
from surefoot._run.folder import RunFolder
from surefoot._run.verify import verify
from surefoot.cli import main

pytestmark = pytest.mark.filterwarnings("ignore:mtime may not be reliable")


class Bowl(nn.Module):
    def __init__(self):
        super().__init__()
        self.x = nn.Parameter(torch.ones(3, dtype=torch.float64))

    def forward(self):
        return (torch.tensor([2.0, 1.0, 0.25]) * self.x**2).sum() / 2


@pytest.fixture
def folder(tmp_path):
    model = Bowl()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.4)
    probes = ("smoothness", "noise", "aiming", "stationarity")
    with watch(
        model, optimizer, probes=probes, every=1, objective=model, f_star=0.0, overhead=math.inf
    ) as w:
        for _ in range(12):
            optimizer.zero_grad()
            loss = model()
            loss.backward()
            w.log(loss=loss)
            optimizer.step()
    w.write_page(tmp_path / "runs")
    return RunFolder.all(tmp_path / "runs")[0]


def verified(folder, capsys, code):
    assert main(["verify", str(folder.path), "--json"]) == code
    return json.loads(capsys.readouterr().out)


def test_a_watched_training_is_verified(folder, capsys):
    found = verified(folder, capsys, 0)
    kept = [c for c in found["certificates"] if c["again"] == "KEPT"]
    assert {c["name"] for c in kept} == {"sufficient decrease", "linear rate"}
    assert all(c["stored"] == "KEPT" and not c["differs"] for c in kept)
    assert not any(said.startswith("no verdict") for said in found["unchecked"])


@pytest.mark.parametrize(("field", "value"), [("verdict", "BROKEN"), ("tightness", 0.125)])
def test_a_verdict_that_its_record_does_not_bear_is_found(folder, capsys, field, value):
    file = folder.path / "certificate.json"
    stored = json.loads(file.read_text())
    stored["certificates"][0][field] = value
    file.write_text(json.dumps(stored))
    relist(folder, file)
    first = verified(folder, capsys, 1)["certificates"][0]
    if field == "verdict":
        assert (first["stored"], first["again"]) == ("BROKEN", "KEPT")
    else:
        assert first["differs"] == [field]


def test_a_claim_that_nobody_offers_is_found(folder, capsys):
    file = folder.path / "certificate.json"
    stored = json.loads(file.read_text())
    stored["certificates"].append({**stored["certificates"][0], "name": "it is the best"})
    file.write_text(json.dumps(stored))
    relist(folder, file)
    last = verified(folder, capsys, 1)["certificates"][-1]
    assert (last["name"], last["stored"], last["again"]) == ("it is the best", "KEPT", None)


def test_a_record_of_something_else_bears_no_verdict(folder, capsys):
    (config,) = folder.path.glob("config.json")
    said = json.loads(config.read_text())
    config.write_text(json.dumps(said | {"study": "finetune"}))
    relist(folder, config)
    found = verified(folder, capsys, 1)
    assert "cannot be concluded from its record" in found["unchecked"][0]
    assert {c["again"] for c in found["certificates"]} == {None}


def test_the_same_claim_twice_is_found(folder, capsys):
    file = folder.path / "certificate.json"
    stored = json.loads(file.read_text())
    # The page shows both, and one of them would be held against the record.
    stored["certificates"].insert(0, {**stored["certificates"][0], "verdict": "VACUOUS"})
    file.write_text(json.dumps(stored))
    relist(folder, file)
    (said,) = verified(folder, capsys, 1)["changes"]
    assert said.endswith("is there 2 times")


def test_a_study_of_that_name_is_verified_as_a_study(folder, monkeypatch):
    def never(*given):
        raise AssertionError

    plan = {k: v for k, v in folder.config.items() if k != "single"}
    monkeypatch.setattr(RunFolder, "config", plan)
    assert verify(folder, {"watch": never}).unchecked[-1].startswith("no verdict")
