"""Every command has --json, and prints then one JSON document and nothing else."""

import dataclasses
import json
import sys
import typing
import warnings
from pathlib import Path
from typing import Annotated, get_args, get_origin

import numpy as np
import pytest
import torch

from surefoot.cli import _every_command, main

TOYS = Path(__file__).parent / "toys"
APPS = Path(__file__).parents[1] / "apps"
MINE = """
import numpy as np


def one_step(X, y, xq):
    return (X @ y[..., None])[..., 0].mul(xq).sum(-1) / X.shape[-1]


def train(include, seed):
    return include.numpy() + np.random.default_rng(seed).standard_normal(len(include))
"""


def leaves(kind, words=()):
    """(words, class) of every command below one."""
    if get_origin(kind) is Annotated:
        inner, *marks = get_args(kind)
        names = [m.name for m in marks if getattr(m, "name", None)]
        yield from leaves(inner, (*words, *names))
    elif dataclasses.is_dataclass(kind):
        hints = {f.name: f.type for f in dataclasses.fields(kind)}
        below = hints.get("command", hints.get("study"))
        if below is None:
            yield words, kind
        elif isinstance(below, str):
            module = vars(sys.modules[kind.__module__])
            below = typing.get_type_hints(kind, module, include_extras=True)[
                "command" if "command" in hints else "study"
            ]
            yield from leaves(below, words)
        else:
            yield from leaves(below, words)
    else:
        for each in get_args(kind):
            yield from leaves(each, words)


COMMANDS = dict(leaves(_every_command()))


def test_every_command_has_the_flag():
    assert len(COMMANDS) > 30
    lacking = [
        w for w, c in COMMANDS.items() if "json" not in {f.name for f in dataclasses.fields(c)}
    ]
    assert lacking == []


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with what the commands read."""
    folder = tmp_path_factory.mktemp("json")
    (folder / "mine.py").write_text(MINE)
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((200, 3))
    np.savetxt(
        folder / "table.csv", np.c_[rows, rows @ [1.0, -1.0, 0.5]],
        delimiter=",", header="a,b,c,target", comments="",
    )  # fmt: skip
    included = np.arange(400) % 2
    np.savetxt(
        folder / "scores.csv", np.c_[rng.standard_normal(400), included],
        delimiter=",", header="score,included", comments="",
    )  # fmt: skip
    from surefoot.prototypes import extract_prototypes

    features, labels = torch.from_numpy(rows), torch.from_numpy(included[:200])
    extract_prototypes(features.float(), labels, "mean", encoder_id="toy").save(folder / "u.npz")
    opacus(folder / "opacus.pt")
    return folder


def opacus(file):
    """A checkpoint as Opacus writes it."""
    from opacus import PrivacyEngine

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        engine, model = PrivacyEngine(), torch.nn.Linear(1, 1)
    engine.accountant.history = [(1.0, 0.1, 10)]
    engine.save_checkpoint(path=str(file), module=model)


TOLD = {
    "list": "",
    "report": "runs",
    "verify": "RUN",
    "data list": "",
    "data fetch": "digits",
    "doctor": "",
    "completion": "bash",
    "architecture compact": "table.csv --target target --steps 60 --out one",
    "compact": "table.csv --target target --steps 60 --out two",
    "in-context probe": "mine:one_step --prompts 16 --max-loops 1",
    "privacy epsilon": "--sigma 1 --q 0.1 --steps 10",
    "privacy calibrate": "--epsilon 2 --q 0.1 --steps 10",
    "privacy from-opacus": "opacus.pt --sampling poisson",
    "privacy curve": "--sigma 1 --q 0.1 --steps 1:10 --points 2",
    "privacy audit": "scores.csv --k 20",
    "privacy audit-train": "mine:train --m 100 --k 20 --shadow 0",
    "privacy counterexample": "forgetting --runs 200",
    "prototypes inspect": "u.npz",
}
SLOW = {"federate simulate": f"{APPS}/repopt --rounds 1 --set data=digits --out end.safetensors"}
ELSEWHERE = {
    "finetune": "tests/finetune/test_command.py",
    "compare": "tests/comparing/test_compare.py",
    "zo replay": "tests/zeroth_order/test_log_files.py",
    "replay": "the same command",
    "architecture pretrain": "tests/architecture/test_compact_cli.py",
    "federate up": "the same as simulate, with nodes",
}


def test_no_command_is_left_out():
    named = {" ".join(w) for w in COMMANDS if w[0] != "run"}
    assert set(TOLD) | set(SLOW) <= named
    assert named <= set(TOLD) | set(SLOW) | set(ELSEWHERE)


def made(place, monkeypatch):
    """A run of the toy study."""
    monkeypatch.syspath_prepend(str(TOYS))
    monkeypatch.chdir(place)
    monkeypatch.syspath_prepend(str(place))
    runs = [*Path("runs").glob("toy/*")]
    if not runs:
        words = ["--part", "noisy", "--seeds", "2", "--backend", "threading"]
        assert main(["run", "toy_study", *words]) in (0, 1)
        runs = [*Path("runs").glob("toy/*")]
    return str(runs[0])


@pytest.mark.parametrize(
    "command", [*sorted(TOLD), *(pytest.param(c, marks=pytest.mark.acceptance) for c in SLOW)]
)
def test_json_is_one_document_alone(command, place, monkeypatch, capfd):
    run = made(place, monkeypatch)
    capfd.readouterr()
    words = [run if w == "RUN" else w for w in (TOLD | SLOW)[command].split()]
    assert main([*command.split(), *words, "--json"]) in (0, 1)
    json.loads(capfd.readouterr().out)


def test_a_run_prints_one_document_alone(place, monkeypatch, capfd):
    made(place, monkeypatch)
    capfd.readouterr()
    words = ["--part", "noisy", "--seeds", "2", "--backend", "threading", "--json"]
    assert main(["run", "toy_study", *words]) in (0, 1)
    (found,) = json.loads(capfd.readouterr().out)
    assert found["study"] == "toy"
