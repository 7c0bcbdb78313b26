"""`surefoot in-context probe`: a callable by name, table, JSON, picture, one sentence for every error."""

import json
import re

import pytest

from surefoot.cli import main

SOURCE = '''
import torch
from beside import step
from torch import nn

def one_step(X, y, xq):
    """A step of gradient descent."""
    return step * ((X * y[:, None]).mean(2) * xq).sum(1)

def layers(X, y, xq):
    return torch.stack([one_step(X, y, xq)], 1)

def wrong(X, y, xq):
    return xq

class Holder:
    inner = staticmethod(one_step)
'''


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "my_attention.py").write_text(SOURCE)
    (tmp_path / "beside.py").write_text("step = 0.5")
    (tmp_path / "broken.py").write_text("1 / 0")
    monkeypatch.chdir(tmp_path)
    return tmp_path


SMALL = ["--dimension", "2", "--examples", "6", "--max-loops", "2", "--prompts", "12"]


def probe(target, *words):
    return main(["in-context", "probe", target, *SMALL, *words])


@pytest.mark.parametrize("target", ["my_attention:one_step", "my_attention.py:Holder.inner"])
def test_a_callable_by_name_is_probed(folder, capsys, target):
    assert probe(target) == 0
    out = capsys.readouterr().out
    assert "verdict: gradient descent, 1 step with preconditioner A" in out
    assert "A is 0.5 S^-1" in out
    assert "probe of one_step: d = 2, n = 6, 12 prompts to fit, 12 held out" in out


def test_json_is_json_alone(folder, capsys):
    assert probe("my_attention:one_step", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["verdict"], found["loops"]) == ("gd", 1)
    assert found["A"][0][0] == pytest.approx(0.5, abs=1e-6)
    assert found["prompts"] == {"fitted": 12, "held_out": 12, "unanswered": 0}


def test_the_seed_is_used(folder, capsys):
    found = []
    for seed in ("0", "0", "5"):
        assert probe("my_attention:one_step", "--json", "--seed", seed) == 0
        found.append(json.loads(capsys.readouterr().out)["errors"])
    assert found[0] == found[1] != found[2]


def test_layers_are_fitted_one_by_one(folder, capsys):
    assert probe("my_attention:layers", "--layers") == 0
    assert "layer 1" in capsys.readouterr().out


def test_the_picture_needs_nothing_else(folder, capsys):
    assert probe("my_attention:one_step", "--picture", "weights.html") == 0
    page = (folder / "weights.html").read_text(encoding="utf-8")
    assert "k = 2: error" in page
    # The script inside has addresses of its own, for maps.
    assert not re.search(r'<(script|link|img)\b[^>]* (src|href)="http', page)


@pytest.mark.parametrize(
    ("target", "words", "message"),
    [
        ("my_attention", [], "MODULE:CALLABLE or FILE.py:CALLABLE, got 'my_attention'"),
        ("my_attention:", [], "MODULE:CALLABLE"),
        (":one_step", [], "MODULE:CALLABLE"),
        ("nowhere:f", [], "nowhere cannot be imported: ModuleNotFoundError"),
        ("nowhere.py:f", [], "there is no file nowhere.py"),
        ("broken:f", [], "broken cannot be imported: ZeroDivisionError"),
        ("my_attention:two_steps", [], "has no two_steps; it has Holder, layers"),
        ("my_attention:step", [], "fn must be a callable"),
        ("my_attention:Holder", [], "the class Holder"),
        ("my_attention:wrong", [], "fn must return one prediction a prompt"),
        ("my_attention:one_step", ["--layers"], "shape (8, layers)"),
        ("my_attention:one_step", ["--confidence", "2"], "confidence must be"),
        ("my_attention:one_step", ["--prompts", "1"], "--prompts must be"),
        ("my_attention:one_step", ["--picture", "no/where.html"], "there is no folder no"),
        ("my_attention:one_step", ["--picture", "weights.bmp"], "in .svg, .pdf, .png, got weights.bmp"),
    ],
)  # fmt: skip
def test_every_error_is_one_sentence(folder, capsys, target, words, message):
    assert probe(target, *words) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("error: ")
    assert len(said.err.splitlines()) == 1
    assert message in said.err


def test_the_command_is_in_the_help(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "in-context" in capsys.readouterr().out
