"""Every key of the apps is used, or refused by name."""

import json
import tomllib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from surefoot.federated import cli, launcher
from surefoot.federated.apps import strategy_settings
from surefoot.federated.launcher import FederationError, here
from surefoot.federated.run_config import FLOOR, RULE
from surefoot.lora.doors.flower import RacSettings, RacStrategy
from surefoot.lora.doors.flower_digits import KEYS as RAC_KEYS
from surefoot.lora.doors.flower_digits import digits_problem, rac_strategy
from surefoot.reparam._task.configured import KEYS, load_images
from surefoot.reparam._task.networks import NETWORK
from surefoot.reparam.doors.flower import repopt_strategy, repopt_task

APPS = Path(__file__).parents[2] / "apps"
SMALL = {"data": "digits", "examples": 20, "depths": "1", "widths": "4"}


def keys_of(app):
    text = (APPS / app / "pyproject.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)["tool"]


@pytest.mark.parametrize(
    ("app", "known"), [("repopt", FLOOR | RULE | KEYS | NETWORK), ("raclora", FLOOR | RAC_KEYS)]
)
def test_the_keys_of_an_app_are_those_that_are_read(app, known):
    assert set(keys_of(app)["flwr"]["app"]["config"]) == known


@pytest.fixture
def own_digits(tmp_path, monkeypatch):
    """Twenty images of the caller's own, all black, beside where it is called."""
    table = pd.DataFrame(np.zeros((20, 64)), columns=[f"p{i}" for i in range(64)])
    table["target"] = np.arange(20) % 2
    table.to_csv(tmp_path / "own.csv", index=False)
    monkeypatch.chdir(tmp_path)
    return "own.csv"


def test_ones_own_data_are_trained_on(own_digits):
    task = repopt_task({**SMALL, "examples": 10, "data-path": own_digits})
    assert torch.equal(task.images, torch.zeros(10, 1, 8, 8))
    assert set(task.labels.tolist()) <= {0, 1}
    built_in = repopt_task({**SMALL, "examples": 10})
    assert built_in.images.any()


def test_a_path_to_nothing_or_to_other_data_is_an_error(own_digits, tmp_path):
    with pytest.raises((OSError, ValueError), match="nowhere"):
        repopt_task({**SMALL, "data-path": "nowhere.csv"})
    pd.DataFrame(np.zeros((4, 3)), columns=["a", "b", "target"]).to_csv("narrow.csv", index=False)
    with pytest.raises(ValueError, match=r"data-path 'narrow.csv' must hold 64"):
        repopt_task({**SMALL, "data-path": "narrow.csv"})
    with pytest.raises(ValueError, match="examples must be at most 16"):
        load_images("digits", own_digits, 0, 17)


def test_paths_are_those_of_the_callers_folder(own_digits, tmp_path):
    project = APPS / "repopt" / "pyproject.toml"
    found = here({"data-path": own_digits, "scales": "", "lr": 0.1}, project)
    assert found == {"data-path": str(tmp_path / own_digits), "scales": "", "lr": 0.1}
    with pytest.raises(FederationError, match="scales = 'mine.safetensors': there is nothing at"):
        here({"scales": "mine.safetensors"}, project)
    assert here({"data-path": "x"}, APPS / "raclora" / "pyproject.toml") == {"data-path": "x"}


def test_the_launcher_sends_the_absolute_path(own_digits, tmp_path, monkeypatch):
    sent = []

    def command(self, *words, timeout):
        sent.extend(words)
        (tmp_path / "f" / "result.safetensors").write_bytes(b"arrays")
        (tmp_path / "f" / "result.safetensors.json").write_text("{}")
        return "streamed"

    monkeypatch.setattr(launcher.Federation, "command", command)
    monkeypatch.setattr(launcher, "check_ray", lambda: None)
    federation = launcher.Federation(APPS / "repopt", 2, secure=False, folder=tmp_path / "f")
    (tmp_path / "f").mkdir()
    federation.run("o", {"data-path": own_digits})
    assert f'data-path="{tmp_path / own_digits}"' in sent[-1]
    assert (tmp_path / "o").read_bytes() == b"arrays"
    assert (tmp_path / "o.json").read_text() == "{}"


def test_a_run_that_ends_early_says_why_and_not_what_an_older_one_said(tmp_path, monkeypatch):
    def command(self, *words, timeout):
        report = tmp_path / "f" / "result.safetensors.json"
        assert not report.exists()
        report.write_text(json.dumps({"error": "the scanner is down"}))
        return "streamed"

    monkeypatch.setattr(launcher.Federation, "command", command)
    monkeypatch.setattr(launcher.Federation, "log", lambda self, name: "access lines")
    monkeypatch.setattr(launcher, "check_ray", lambda: None)
    federation = launcher.Federation(APPS / "repopt", 2, secure=False, folder=tmp_path / "f")
    (tmp_path / "f").mkdir()
    (tmp_path / "f" / "result.safetensors.json").write_text("of another run")
    (tmp_path / "o").write_text("a result of before")
    with pytest.raises(
        FederationError, match=r"(?s)without a result: the scanner is down.*streamed"
    ):
        federation.run(tmp_path / "o")
    assert (tmp_path / "o").read_text() == "a result of before"


def test_switches_travel_as_such():
    assert cli._value("true") is True
    assert launcher._toml(True) == "true"
    assert (cli._value("4"), cli._value("inf"), cli._value("none")) == (4, float("inf"), "none")


UNUSED = [
    {"arm": "inf", "scales": "s.safetensors"}, {"arm": "rep", "scales": "s.safetensors"},
    {"ghost-width": 1.0}, {"ghost-stages": 3}, {"model": "ghost", "depths": "1"},
    {"model": "ghost", "widths": "4"}, {"server-rule": "fedprox"}, {"learning-rate": 0.1},
    {"data_path": "x"}, {"batch-size": 32.5}, {"local-epochs": 0}, {"lr": float("nan")},
    {"alpha": 0}, {"examples": -1}, {"num-partitions": True}, {"seed": "0"}, {"momentum": "much"},
    {"model": "resnet"}, {"weight-decay": -1.0}, {"proximal-mu": float("inf")}, {"examples": 10**6},
]  # fmt: skip


@pytest.mark.parametrize("config", UNUSED, ids=str)
def test_a_key_without_use_or_sense_is_refused_by_name(config):
    base = {k: v for k, v in SMALL.items() if k in ("data", "examples")}
    key = "proximal-mu" if "server-rule" in config else list(config)[-1]
    with pytest.raises(ValueError, match=key):
        repopt_task({**base, **config})


def test_defaults_beside_others_are_no_keys_given():
    config = keys_of("repopt")["flwr"]["app"]["config"] | {"data": "digits", "examples": 30}
    for more in ({}, {"model": "ghost", "ghost-stages": 1}, {"arm": "rep"}, {"arm": "inf"}):
        repopt_task({**config, **more})


@pytest.mark.parametrize(
    "bad",
    [{"fraction": 0.0}, {"fraction": 1.5}, {"min-nodes": 1.5}, {"node-timeout": -1.0},
     {"round-timeout": 0}, {"server-lr": float("nan")}, {"num-partitions": 0}, {"server-rule": "FedAvg"}],
    ids=str,
)  # fmt: skip
def test_keys_of_the_floor(bad):
    (key,) = bad
    with pytest.raises(ValueError, match=key.removeprefix("server-").removeprefix("round-")):
        repopt_strategy(bad, repopt_task(SMALL))


def test_keys_of_raclora():
    for bad in ({"rank": 2.5}, {"local-steps": 0}, {"train": "C"}, {"eta": 0.0}, {"gamma": "x"}):
        (key,) = bad
        with pytest.raises(ValueError, match=key):
            rac_strategy(bad, None)
    with pytest.raises(ValueError, match="unknown keys server-rule"):
        digits_problem({"server-rule": "fedavgm"})
    settings = RacSettings(2, 0.1)
    for name in ("rule", "extra"):
        given = (
            strategy_settings({"server-lr": 0.5})["rule"]
            if name == "rule"
            else {"a": torch.ones(1)}
        )
        with pytest.raises(ValueError, match=f"{name} is not taken"):
            RacStrategy(2, settings, **{name: given})
