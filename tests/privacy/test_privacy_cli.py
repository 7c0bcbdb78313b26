"""The command line of this package, read as a person would."""

import json

import numpy as np
import pandas as pd
import pytest

from surefoot.cli import main
from surefoot.privacy import last_iterate, standard


def output(capsys, *words):
    code = main(["privacy", *words])
    return code, capsys.readouterr()


def test_epsilon(capsys):
    code, out = output(capsys, "epsilon", "--sigma", "1", "--q", ".1", "--steps", "20")
    assert code == 0
    lines = out.out.splitlines()
    assert lines[1].split()[:2] == ["standard", f"{standard(1, 0.1, 20).epsilon(1e-5).value:.5g}"]
    assert "not a DP guarantee" in out.out


def test_human_units_and_json(capsys):
    words = ["--dataset-size", "1000", "--batch-size", "100", "--epochs", "3", "--json"]
    code, out = output(capsys, "epsilon", "--sigma", "1", *words)
    found = json.loads(out.out)
    assert code == 0
    assert (found["sample_rate"], found["steps"]) == (0.1, 30)
    assert [r["name"] for r in found["rows"]][:2] == ["standard", "heuristic"]


def test_momentum_and_schedule(capsys):
    words = ["--sigma", "1", "--q", ".1", "--steps", "20", "--json"]
    _, out = output(
        capsys,
        "epsilon",
        *words,
        "--momentum",
        ".9",
        "--schedule",
        "linear",
        "--weight-decay",
        ".1",
    )
    value = next(r["epsilon"] for r in json.loads(out.out)["rows"] if r["name"] == "heuristic")
    x, buffer, ends = 0.0, 0.0, []
    for t in range(20):
        x = buffer = 0.0
        for u in range(20):
            g = float(u == t) + 0.1 * x
            buffer = g if u == 0 else 0.9 * buffer + g
            x -= 0.1 * (1 - u / 20) * buffer
        ends.append(-x)
    assert value == pytest.approx(
        last_iterate(1, 0.1, 20, weights=ends).epsilon(1e-5).value, abs=1e-6
    )


@pytest.mark.parametrize("by", ["standard", "heuristic"])
def test_calibrate_prints_the_proven_value_first(capsys, by):
    words = ["--epsilon", "3", "--q", "1", "--steps", "5", "--by", by]
    code, out = output(capsys, "calibrate", *words)
    assert code == 0
    assert out.out.splitlines()[0].startswith("proven epsilon")


def test_curve(capsys, tmp_path):
    page = tmp_path / "fig.html"
    words = ["--sigma", "1", "--q", ".1", "--steps", "1:100", "--points", "3", "--out", str(page)]
    code, out = output(capsys, "curve", *words)
    assert code == 0
    assert [line.split()[0] for line in out.out.splitlines()[1:4]] == ["1", "10", "100"]
    assert "plotly" in page.read_text(encoding="utf-8")


def scores_file(path, gap):
    rng = np.random.default_rng(0)
    included = rng.random(400) < 0.5
    score = gap * included + rng.standard_normal(400)
    pd.DataFrame({"score": score, "included": included.astype(int)}).to_csv(path, index=False)
    return str(path)


def test_audit_of_a_file(capsys, tmp_path):
    path = scores_file(tmp_path / "scores.csv", 8.0)
    claim = ["--sigma", "4", "--q", ".1", "--steps", "100"]
    code, out = output(capsys, "audit", path, "--k", "100", *claim)
    assert code == 3
    assert "implementation is not DP as claimed" in out.out
    code, out = output(capsys, "audit", path, "--k", "100", "--json")
    assert code == 0
    assert json.loads(out.out)["verdict"] is None


def test_audit_train(capsys, tmp_path, monkeypatch):
    (tmp_path / "my_training.py").write_text(
        "import numpy as np\n"
        "def train(include, seed):\n"
        "    noise = np.random.default_rng(seed).standard_normal(len(include))\n"
        "    return 6.0 * include.numpy() + noise\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    words = [
        "--m",
        "200",
        "--k",
        "60",
        "--shadow",
        "0",
        "--sigma",
        "4",
        "--q",
        ".1",
        "--steps",
        "9",
    ]
    code, out = output(capsys, "audit-train", "my_training:train", *words)
    assert code == 3
    assert "of 120 guesses right" in out.out


def test_counterexample(capsys):
    code, out = output(capsys, "counterexample", "forgetting", "--runs", "200000")
    assert code == 0
    assert "heuristic violated" in out.out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["epsilon", "--sigma", "-1", "--q", ".1", "--steps", "3"], "noise_multiplier"),
        (["epsilon", "--sigma", "1", "--q", ".1"], "give --q and --steps, or all of"),
        (
            ["epsilon", "--sigma", "1", "--q", ".1", "--steps", "3", "--dataset-size", "9",
             "--batch-size", "3", "--epochs", "1"],
            "replace --q and --steps",
        ),
        (
            ["epsilon", "--sigma", "1", "--dataset-size", "9", "--batch-size", "10", "--epochs", "1"],
            "--batch-size must be between 1 and --dataset-size = 9, got 10",
        ),
        (["calibrate", "--epsilon", "0", "--q", ".1", "--steps", "3"], "target_epsilon"),
        (["curve", "--sigma", "1", "--q", ".1", "--steps", "9:1"], "--steps must be FIRST:LAST"),
        (["curve", "--sigma", "1", "--q", ".1", "--out", "x.svg", "--points", "1"], "kaleido"),
        (["from-opacus", "nowhere.pt"], "nowhere.pt is no file"),
        (["audit", "nowhere.csv"], "nowhere.csv is no file"),
        (["audit-train", "nonsense", "--m", "20"], "must be MODULE:FUNCTION, got 'nonsense'"),
        (["audit-train", "no_such_module:f", "--m", "20"], "cannot import no_such_module:f"),
    ],
)  # fmt: skip
def test_bad_input(capsys, words, message):
    code, out = output(capsys, *words)
    assert code == 2
    assert message in out.err


def test_bad_scores_files(capsys, tmp_path):
    path = tmp_path / "scores.csv"
    path.write_text("a,b\n1,2\n")
    code, out = output(capsys, "audit", str(path))
    assert code == 2
    assert "columns score and included, got ['a', 'b']" in out.err
    path.write_text("score,included\n1.0,2\n")
    assert output(capsys, "audit", str(path))[0] == 2
    path.write_text("score,included\n" + "nan,1\n" * 10 + "1.0,0\n" * 10)
    code, out = output(capsys, "audit", str(path))
    assert code == 2
    assert "scores must be finite" in out.err
    path.write_text("score,included\n1.0,1\n1.0,0\n")
    code, out = output(capsys, "audit", str(path), "--sigma", "1")
    assert code == 2
    assert "a claim needs all of" in out.err
