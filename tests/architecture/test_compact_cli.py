"""`surefoot compact DATA.csv --target COLUMN`: front, picture, C file, certificate; and what it refuses."""

import json

import numpy as np
import pandas as pd
import pytest
import torch

from surefoot.architecture import NetworkAutoencoder, build_module, pretrained_path
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
        (
            ["numbers.csv", "--target", "height2"],
            "did you mean 'height'?",
        ),
        (["data.csv", "--target", "size"], "columns kind have words"),
        (["numbers.csv", "--target", "size", "--max-params", "0"], "--max-params"),
        (["numbers.csv", "--target", "size", "--certify-fraction", "2"], "--certify-fraction"),
        (["holes.csv", "--target", "size"], "columns height lack values"),
        (["words.csv", "--target", "kind", "--task", "regression"], "needs numbers"),
        (["empty.csv", "--target", "b"], "has a header and no rows"),
        (["long.csv", "--target", "b"], "more values than its header has names"),
        (["counted.csv", "--target", "b"], "more values than its header has names"),
        (["unnamed.csv", "--target", "b"], "column 1 of"),
        (["twice.csv", "--target", "b"], "two columns 'a'"),
    ],
)
def test_what_it_refuses(csv, capsys, words, said):
    table = pd.read_csv(csv / "numbers.csv")
    table.mask(table["height"] > 1).fillna({c: 0 for c in table if c != "height"}).to_csv(
        csv / "holes.csv", index=False
    )
    pd.read_csv(csv / "data.csv").drop(columns="size").to_csv(csv / "words.csv", index=False)
    for name, text in (
        ("empty", "a,b\n"), ("long", "a,b\n1,2,3\n4,5,6\n"), ("counted", "a,b\n0,2,3\n1,5,6\n"),
        ("unnamed", ",b\n1,2\n3,4\n"),
        ("twice", "a,a,b\n1,2,3\n"),
    ):  # fmt: skip
        (csv / f"{name}.csv").write_text(text)
    assert run(csv, str(csv / words[0]), *words[1:]) == 2
    assert said in capsys.readouterr().err
    assert not (csv / "out").exists()


def test_a_folder_with_files_is_not_overwritten(csv, capsys):
    (csv / "out").mkdir()
    (csv / "out" / "mine").write_text("")
    assert run(csv, str(csv / "numbers.csv"), "--target", "size") == 2
    assert "exists already" in capsys.readouterr().err


def test_a_folder_that_cannot_be_made_is_said_before_the_fit(csv, capsys, monkeypatch):
    monkeypatch.setattr("surefoot.architecture.cli.Compact._fit", lambda *_: pytest.fail("fitted"))
    (csv / "file").write_text("")
    found = main(
        [
            "compact",
            str(csv / "numbers.csv"),
            "--target",
            "size",
            "--out",
            str(csv / "file" / "out"),
        ]
    )
    assert found == 2
    assert "cannot be written to" in capsys.readouterr().err


def test_true_and_false_are_numbers_and_no_name_opens_a_comment(csv):
    table = pd.read_csv(csv / "numbers.csv").drop(columns="noise */ in")
    table["on /* off"] = table["width"] > 0
    table["size"] = 3.0 * table["on /* off"]
    table.to_csv(csv / "on.csv", index=False)
    assert run(csv, str(csv / "on.csv"), "--target", "size") == 0
    text = (csv / "out" / "model.c").read_text()
    assert "on / * off" in text
    assert "on /* off" not in text


def test_a_decoder_is_trained_once_kept_and_searched_in(csv, capsys, monkeypatch):
    monkeypatch.setenv("SUREFOOT_DATA", str(csv / "cache"))
    words = ["architecture", "pretrain", "--steps", "1", "--networks", "20", "--json"]
    file = csv / "decoder.safetensors"
    first, again = (
        (main([*words, *more]), json.loads(capsys.readouterr().out))[1]
        for more in ([], ["--out", str(file)])
    )
    assert (first["read from the cache"], again["read from the cache"]) == (False, True)
    model = NetworkAutoencoder.load(file)
    assert first["sha256"] == again["sha256"] == model.digest()
    assert first["file"] == str(pretrained_path(steps=1))
    assert first["median"] == again["median"] <= again["median_bound"]
    assert len(first["winners"]) == 3
    table = ["compact", str(csv / "numbers.csv"), "--target", "size", "--steps", "120", "--json"]
    assert main([*table, "--out", str(csv / "out"), "--autoencoder", str(file)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["certificate"]["autoencoder"] == model.digest()
    assert main([*table, "--out", str(csv / "out2"), "--autoencoder", str(csv / "no")]) == 2
    assert "surefoot architecture pretrain" in capsys.readouterr().err
    assert not (csv / "out2").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [(["--steps", "0"], "steps"), (["--networks", "1"], "n must be")],
)
def test_what_pretraining_refuses(csv, capsys, monkeypatch, words, said):
    monkeypatch.setenv("SUREFOOT_DATA", str(csv / "cache"))
    monkeypatch.setattr("surefoot.architecture.pretraining.STEPS", 1)
    assert main(["architecture", "pretrain", *words]) == 2
    assert said in capsys.readouterr().err
