"""The command line of this package, read as a person would."""

import json
import warnings

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


def test_public_directions_have_no_heuristic(capsys):
    words = ["--sigma", "1", "--q", ".1", "--steps", "20", "--public-directions"]
    code, out = output(capsys, "epsilon", *words)
    assert code == 0
    assert f"{standard(1, 0.1, 20).epsilon(1e-5).value:.5g}" in out.out
    assert f"{last_iterate(1, 0.1, 20).epsilon(1e-5).value:.4g}" not in out.out
    assert "directions of the steps are public" in out.out


def test_human_units_and_json(capsys):
    words = ["--dataset-size", "1000", "--batch-size", "100", "--epochs", "3", "--json"]
    code, out = output(capsys, "epsilon", "--sigma", "1", *words)
    found = json.loads(out.out)
    assert code == 0
    assert (found["sample_rate"], found["steps"]) == (0.1, 30)
    assert [r["name"] for r in found["rows"]][:2] == ["standard", "heuristic"]


def history_of_a_training(n, batch, epochs, poisson, drop_last=False):
    """What Opacus' accountant writes down where its loader is run through."""
    import opacus
    import torch
    from torch.utils.data import DataLoader, TensorDataset

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = torch.nn.Linear(1, 1)
        engine = opacus.PrivacyEngine()
        net, optimizer, data = engine.make_private(
            module=model,
            optimizer=torch.optim.SGD(model.parameters(), 0.1),
            data_loader=DataLoader(TensorDataset(torch.ones(n, 1)), batch, drop_last=drop_last),
            noise_multiplier=1.0, max_grad_norm=1.0, poisson_sampling=poisson,
        )  # fmt: skip
        for (x,) in (each for _ in range(epochs) for each in data):
            optimizer.zero_grad()
            net(x).sum().backward()
            optimizer.step()
    return engine


# 93 batches: int(1 / (1 / 93)) is 92, and so many Opacus draws.
TRIPLES = [(1000, 600, 1), (93, 1, 1)] + [
    (n, -(-n // batches), epochs)
    for n, batches, epochs in np.random.default_rng(7).integers(
        [20, 1, 1], [400, 13, 4], size=(18, 3)
    ).tolist()
]  # fmt: skip


@pytest.mark.parametrize("triple", TRIPLES, ids=str)
def test_human_units_are_those_of_the_real_run(triple):
    from surefoot.privacy._commands.training import rate_and_steps
    from surefoot.privacy.doors.opacus import history_of

    for poisson, sampling in ((True, "poisson"), (False, "shuffled")):
        engine = history_of_a_training(*triple, poisson)
        q, steps = rate_and_steps(None, None, *triple, sampling=sampling)
        assert history_of(engine) == [(1.0, q, steps)]


def test_a_last_batch_that_is_dropped():
    from surefoot.privacy._commands.training import rate_and_steps
    from surefoot.privacy.doors.opacus import history_of

    for poisson, sampling in ((True, "poisson"), (False, "shuffled")):
        engine = history_of_a_training(50, 20, 2, poisson, drop_last=True)
        found = rate_and_steps(None, None, 50, 20, 2, sampling=sampling, drop_last=True)
        assert history_of(engine) == [(1.0, *found)] == [(1.0, 0.5, 4)]


def test_an_uneven_last_batch_is_a_step(capsys):
    from surefoot.privacy import from_opacus

    words = ["--dataset-size", "1000", "--batch-size", "600", "--epochs", "1", "--json"]
    _, out = output(capsys, "epsilon", "--sigma", "1", *words)
    found = json.loads(out.out)
    assert (found["sample_rate"], found["steps"]) == (0.5, 2)
    assert found["rows"][0]["epsilon"] == pytest.approx(4.854, abs=1e-3)
    engine = history_of_a_training(1000, 600, 1, True)
    assert found["rows"] == from_opacus(engine, 1e-5).to_dict()["rows"]


def test_shuffled_epochs_with_an_uneven_last_batch(capsys):
    words = ["--dataset-size", "60000", "--batch-size", "256", "--epochs", "10"]
    code, out = output(capsys, "epsilon", "--sigma", "1", *words, "--sampling", "shuffled")
    assert code == 0
    assert "2350 steps, shuffled sampling" in out.out


def test_the_optimizer_decides_over_the_heuristic(capsys):
    words = ["--sigma", "1", "--q", ".1", "--steps", "40"]
    _, out = output(capsys, "epsilon", *words, "--momentum", ".9")
    assert "3.4011" in out.out
    assert "steps count as SGD makes them count (momentum 0.9)" in out.out
    _, out = output(capsys, "epsilon", *words, "--optimizer", "Adam")
    assert "no last-iterate value" in out.out
    assert "3.5" not in out.out
    _, out = output(capsys, "epsilon", *words, "--optimizer", "MeZO")
    assert "MeZO takes forward passes only" in out.out


def test_a_counterexample_s_json_carries_the_kinds(capsys):
    _, out = output(capsys, "counterexample", "forgetting", "--runs", "1000", "--json")
    found = json.loads(out.out)
    kinds = {row["name"]: row["kind"] for row in found["rows"]}
    assert kinds == {"standard": "guarantee", "heuristic": "heuristic", "audit": "lower bound"}
    assert any("not a DP guarantee" in note for note in found["notes"])
    _, out = output(
        capsys,
        "epsilon",
        "--sigma",
        ".3",
        "--q",
        ".01",
        "--steps",
        "16",
        "--delta",
        "1e-3",
        "--json",
    )
    rows = {row["name"]: row for row in json.loads(out.out)["rows"]}
    assert {k: r["kind"] for k, r in rows.items() if k in kinds} == {
        "standard": "guarantee", "heuristic": "heuristic",
    }  # fmt: skip
    each = {row["name"]: row for row in found["rows"]}
    assert each["heuristic"] == rows["heuristic"]
    assert each["standard"] == rows["standard"]


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
        (["epsilon", "--sigma", "-1", "--q", ".1", "--steps", "3"], "--sigma must be"),
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
        (
            ["epsilon", "--sigma", "1", "--q", ".1", "--steps", "3", "--optimizer", "Sgd"],
            "--optimizer must be an optimizer of torch or one of LOZO, MeZO, ZOAdam, got 'Sgd'",
        ),
        (
            ["epsilon", "--sigma", "1", "--q", ".1", "--steps", "3", "--drop-last"],
            "--drop-last goes with --dataset-size",
        ),
        (["calibrate", "--epsilon", "0", "--q", ".1", "--steps", "3"], "--epsilon must be"),
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
    assert "SCORES must be finite" in out.err
    path.write_text("score,included\n1.0,1\n1.0,0\n")
    code, out = output(capsys, "audit", str(path), "--sigma", "1")
    assert code == 2
    assert "a claim needs all of" in out.err
