"""`surefoot compact DATA.csv --target COLUMN`: front, picture, C file, certificate; and what it refuses."""

import json

import numpy as np
import pandas as pd
import pytest
import torch

from surefoot.architecture import build_module
from surefoot.certificate import read_certificates
from surefoot.cli import main

RNG = np.random.default_rng(0)


@pytest.fixture
def csv(tmp_path):
    x = RNG.standard_normal((120, 3))
    table = pd.DataFrame(x, columns=["width", "height", "noise */ in"])
    table["size"] = 2 * table["width"] - table["height"]
    table["kind"] = np.where(table["width"] > 0, "wide", "narrow")
    table.to_csv(tmp_path / "data.csv", index=False)
    table.drop(columns="kind").to_csv(tmp_path / "numbers.csv", index=False)
    return tmp_path


def run(folder, *words):
    return main(["compact", *words, "--steps", "60", "--out", str(folder / "out")])


def test_a_regression_with_all_its_files(csv, capsys):
    assert run(csv, str(csv / "numbers.csv"), "--target", "size", "--max-params", "12") == 0
    text = capsys.readouterr().out
    assert "regression: " in text
    assert "reads 2 of 3 columns: width, height" in text
    assert "validation loss" in text
    out = csv / "out"
    assert sorted(p.name for p in out.iterdir()) == [
        "certificate.json", "front.html", "model.c", "model.pt",
    ]  # fmt: skip
    assert len(read_certificates(out / "certificate.json")) >= 5
    assert "x[2] = noise * / in" in (out / "model.c").read_text()
    assert "plotly" in (out / "front.html").read_text().lower()
    saved = torch.load(out / "model.pt", weights_only=True)
    module = build_module(saved["spec"])
    module.load_state_dict(saved["state"])
    table = pd.read_csv(csv / "numbers.csv")
    x = torch.tensor(table[["width", "height", "noise */ in"]].to_numpy(), dtype=torch.float64)
    assert torch.allclose(
        module.double()(x)[:, 0], torch.tensor(table["size"].to_numpy()), atol=0.1
    )


def test_words_are_classes_and_json_is_json(csv, capsys):
    table = csv / "data.csv"
    pd.read_csv(table).drop(columns="size").to_csv(table, index=False)
    assert run(csv, str(table), "--target", "kind", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["task"] == "classification"
    assert found["front"][0]["source"] == "constant"
    assert found["certificate"]["rows"]["certification"] == 24
    assert found["n_params"] >= found["n_nonzero"]
    assert "out[0] > 0 means wide, else narrow" in (csv / "out" / "model.c").read_text()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["missing.csv", "--target", "size"], "there is no file"),
        (["numbers.csv", "--target", "height2"], "no column 'height2'; it has width, height"),
        (["data.csv", "--target", "size"], "columns kind have words"),
        (["numbers.csv", "--target", "size", "--max-params", "0"], "max_params"),
        (["numbers.csv", "--target", "size", "--certify-fraction", "2"], "certify_fraction"),
        (["holes.csv", "--target", "size"], "columns height lack values"),
        (["words.csv", "--target", "kind", "--task", "regression"], "needs numbers"),
    ],
)
def test_what_it_refuses(csv, capsys, words, said):
    table = pd.read_csv(csv / "numbers.csv")
    table.mask(table["height"] > 1).fillna({c: 0 for c in table if c != "height"}).to_csv(
        csv / "holes.csv", index=False
    )
    pd.read_csv(csv / "data.csv").drop(columns="size").to_csv(csv / "words.csv", index=False)
    assert run(csv, str(csv / words[0]), *words[1:]) == 2
    assert said in capsys.readouterr().err
    assert not (csv / "out").exists()


def test_a_folder_with_files_is_not_overwritten(csv, capsys):
    (csv / "out").mkdir()
    (csv / "out" / "mine").write_text("")
    assert run(csv, str(csv / "numbers.csv"), "--target", "size") == 2
    assert "exists already" in capsys.readouterr().err
