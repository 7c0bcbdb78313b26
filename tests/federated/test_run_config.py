"""Every key of the apps is used, or refused by name."""

import json
import tomllib
from pathlib import Path
from typing import get_args

import numpy as np
import pandas as pd
import pytest
import torch

from surefoot.cli import main
from surefoot.federated import launcher
from surefoot.federated.apps import strategy_settings
from surefoot.federated.launcher import Federation, FederationError, check_by, here
from surefoot.federated.run_config import FLOOR, GOING_ON, RULE, check_config, value_of
from surefoot.federated.server_rule import Rule
from surefoot.lora.doors.flower import RacSettings, RacStrategy
from surefoot.lora.doors.flower_digits import KEYS as RAC_KEYS
from surefoot.lora.doors.flower_digits import digits_problem, rac_strategy
from surefoot.prototypes.configured import DATA
from surefoot.prototypes.prototype_set import METHODS
from surefoot.prototypes.server_training import Solver
from surefoot.reparam._task.configured import KEYS, load_images
from surefoot.reparam._task.networks import NETWORK, Attention, Statistics
from surefoot.reparam.doors.flower import repopt_strategy, repopt_task
from surefoot.reparam.task import MODES
from surefoot.zeroth_order.doors.flower_digits import KEYS as ZO_KEYS

APPS = Path(__file__).parents[2] / "apps"
SMALL = {"data": "digits", "examples": 20, "depths": "1", "widths": "4"}


def keys_of(app):
    text = (APPS / app / "pyproject.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)["tool"]


@pytest.mark.parametrize(
    ("app", "known"),
    [
        ("repopt", FLOOR | GOING_ON | RULE | KEYS | NETWORK),
        ("raclora", FLOOR | RAC_KEYS),
        ("zofed", FLOOR | ZO_KEYS),
    ],
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

    def command(self, *words, timeout, meanwhile):
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
    def command(self, *words, timeout, meanwhile):
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
    # Its own sentence, and nothing of what Flower streamed beside it.
    with pytest.raises(FederationError, match=r"without a result: the scanner is down$"):
        federation.run(tmp_path / "o")
    assert (tmp_path / "o").read_text() == "a result of before"


def test_words_of_the_command_line_become_what_their_keys_hold():
    assert launcher._toml(True) == "true"
    assert [value_of(w, 1) for w in ("true", "4", "inf", "much")] == [True, 4, float("inf"), "much"]
    # Text stays text, but for the words that stand for a number or switch that is not given.
    assert value_of("1", "2,2,1") == "1"
    assert [value_of(w, "none") for w in ("4", "none")] == [4, "none"]
    assert value_of("false", "auto") is False


def test_a_number_in_place_of_a_key_that_is_not_given():
    defaults = keys_of("mpft")["flwr"]["app"]["config"]
    check_config({"epsilon": 4, "max-epsilon": 8.5, "evaluate": True, "steps": 100}, defaults)
    with pytest.raises(ValueError, match="method must be text, got 4"):
        check_config({"method": 4}, defaults)


def test_words_that_no_key_has_are_refused_with_the_nearest_before_anything_starts():
    found = keys_of("repopt")
    defaults, choices = found["flwr"]["app"]["config"], found["surefoot"]["choices"]
    with pytest.raises(
        ValueError, match=r"data must be one of mnist5k, .*got 'digit'; did you mean digits\?"
    ):
        check_config({"data": "digit"}, defaults, choices)
    with pytest.raises(ValueError, match=r"arm must be one of .*; bn must be one of"):
        check_config({"arm": "no", "bn": "whole"}, defaults, choices)
    check_config({"data": "digits"}, defaults, choices)


@pytest.mark.parametrize("app", ["repopt", "mpft", "raclora"])
def test_the_words_of_an_app_are_those_that_its_code_takes(app):
    found = keys_of(app)
    defaults, choices = found["flwr"]["app"]["config"], found["surefoot"]["choices"]
    assert all(defaults[key] in words for key, words in choices.items())
    code = {
        "repopt": {
            "bn": get_args(Statistics), "squeeze-excite": get_args(Attention),
            "server-rule": get_args(Rule), "arm": tuple(MODES), "model": ("vgg", "ghost"),
        },
        "mpft": {"data": DATA, "method": METHODS, "solver": get_args(Solver)},
        "raclora": {"train": ("A", "B")},
    }[app]  # fmt: skip
    for key, words in code.items():
        assert sorted(choices[key]) == sorted(words)


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


PRIVATE_RUNS = {
    "zofed": {
        "trust=none": "trust = 'none' needs clip and noise-multiplier",
        "trust=none sample-rate=0.1": "trust = 'none' and sample-rate = 0.1 need clip and noise-multiplier",
        "sample-rate=0.1": "sample-rate = 0.1 needs clip and noise-multiplier",
        "sample-rate=0.1 clip=8": "sample-rate = 0.1 needs clip and noise-multiplier",
        "trust=none clip=8": "trust = 'none' needs clip and noise-multiplier",
        "population=100": "unknown keys population",
        "noise-multiplier=2": "noise-multiplier = 2.0 needs clip",
        "noise-multiplier=-1 clip=8": "noise-multiplier must be",
        "clip=nan": "clip must be",
        "clip=-1": "clip must be",
        "sample-rate=0": "sample-rate must be",
        "sample-rate=2 clip=8 noise-multiplier=2": "sample-rate must be",
        "lr=0": "lr must be",
        "fraction=1.5": "fraction must be",
        "alpha=0": "alpha must be",
    },
    "raclora": {
        "noise-multiplier=2": "noise-multiplier = 2.0 needs clip-norm",
        "clip-norm=nan": "clip-norm must be",
        "clip-norm=-1 noise-multiplier=1": "clip-norm must be",
        "clip-norm=1 noise-multiplier=1 fraction=0.5": "fraction = 0.5 needs secret-draw = true",
        "rank=0": "rank must be",
        "alpha=0": "alpha must be",
    },
}


@pytest.mark.parametrize(
    ("app", "words", "said"),
    [(app, words, said) for app, runs in PRIVATE_RUNS.items() for words, said in runs.items()],
)
def test_a_run_that_would_not_be_what_was_asked_starts_nothing(
    app, words, said, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(Federation, "_start", lambda self: pytest.fail("it was started"))
    out = ["--out", str(tmp_path / "f.safetensors")]
    assert main(["federate", "up", str(APPS / app), *out, "--set", *words.split()]) == 2
    told = capsys.readouterr().err
    assert said in told
    assert len(told.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("app", "words"),
    [
        ("zofed", ""), ("zofed", "clip=8"), ("zofed", "clip=8 noise-multiplier=2 sample-rate=0.1 trust=none"),
        ("zofed", "clip=8 noise-multiplier=2 fraction=0.5"), ("raclora", ""),
        ("raclora", "clip-norm=1 noise-multiplier=1 fraction=0.5 secret-draw=true"),
    ],
)  # fmt: skip
def test_a_run_that_is_right_starts(app, words, tmp_path, monkeypatch):
    class Started(Exception):
        pass

    def start(self):
        raise Started

    monkeypatch.setattr(Federation, "_start", start)
    command = ["federate", "up", str(APPS / app), "--out", str(tmp_path / "f.safetensors")]
    with pytest.raises(Started):
        main([*command, "--set", *words.split()])


def test_an_app_that_names_no_check(tmp_path):
    for place in ("surefoot.federated.keys:nothing", "no_such_module:f", "surefoot"):
        (tmp_path / "pyproject.toml").write_text(f'[tool.surefoot]\ncheck = "{place}"\n')
        with pytest.raises(FederationError, match="must be MODULE:FUNCTION"):
            check_by(tmp_path, {})
