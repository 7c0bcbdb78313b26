"""Records and certificates in the real trackers, each with a store in a folder of its own."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from surefoot import Guarantee, Record, Verdict, certify
from surefoot._run.folder import RunFolder
from surefoot.cli import main
from surefoot.errors import MissingExtraError, UnknownNameError

TOYS = Path(__file__).parent / "toys"
ODD = "f(x_n) - f*"
pytestmark = pytest.mark.filterwarnings("ignore")  # of the clients


@pytest.fixture
def record():
    found = Record()
    for seed in (3, 4):
        found.extend(seed, ODD, [0.9**n * (1 + 0.1 * seed) for n in range(40)])
        found.extend(seed, "loss", [1.0, 0.5], [0, 20])
        found.note(seed, optimizer="SGD", momentum=0.9)
    return found


@pytest.fixture
def certificate(record):
    bound = Guarantee(
        "rate", "f <= .9^n 2", "closed form", ODD, "upper", "every run",
        lambda r: 2 * 0.9 ** np.arange(40.0),
    )  # fmt: skip
    made = certify(record, bound)
    assert made.verdict is Verdict.KEPT
    return made


def expected(record, quantity, seed):
    curve = record.of_seed(seed).curves(quantity)
    return dict(zip(curve.steps.tolist(), curve.values[0].tolist(), strict=True))


def test_mlflow(record, certificate, tmp_path, monkeypatch):
    pytest.importorskip("mlflow", reason="needs the sinks extra")
    from mlflow.tracking import MlflowClient

    monkeypatch.chdir(tmp_path)
    place = f"sqlite:///{tmp_path / 'store.db'}"
    record.to("mlflow", place, project="mine", run="first", certificates=[certificate])
    client = MlflowClient(tracking_uri=place)
    runs = client.search_runs([client.get_experiment_by_name("mine").experiment_id])
    assert sorted(r.info.run_name for r in runs) == ["first seed 3", "first seed 4"]
    for run in runs:
        seed = int(run.data.params["seed"])
        assert run.info.status == "FINISHED"
        assert run.data.params["optimizer"] == "SGD"
        for name, quantity in (("f_x_n_ - f_", ODD), ("loss", "loss")):
            history = client.get_metric_history(run.info.run_id, name)
            assert {m.step: m.value for m in history} == expected(record, quantity, seed)
        names = client.download_artifacts(run.info.run_id, "names.json")
        assert json.loads(Path(names).read_text()) == {"f_x_n_ - f_": ODD}
        text = Path(client.download_artifacts(run.info.run_id, "certificates.json")).read_text()
        assert [c["verdict"] for c in json.loads(text)] == ["KEPT"]
    # Again: a run more in the same experiment.
    record.to("mlflow", place, project="mine", run="second")
    assert len(client.search_runs([client.get_experiment_by_name("mine").experiment_id])) == 4


def test_tensorboard(record, certificate, tmp_path):
    pytest.importorskip("tensorboard", reason="needs the sinks extra")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    record.to("tensorboard", tmp_path, project="mine", run="first", certificates=[certificate])
    for seed in (3, 4):
        folder = tmp_path / "mine" / f"first seed {seed}"
        events = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
        assert len(events.Tags()["scalars"]) == 2
        for tag in events.Tags()["scalars"]:
            quantity = "loss" if tag == "loss" else ODD
            found = {e.step: e.value for e in events.Scalars(tag)}
            wanted = expected(record, quantity, seed)
            assert found.keys() == wanted.keys()
            # Event files hold float32.
            np.testing.assert_allclose([found[s] for s in wanted], list(wanted.values()), rtol=1e-6)
        assert {t.split("/")[0] for t in events.Tags()["tensors"]} == {
            "facts", "names", "certificates", "verdicts",
        }  # fmt: skip
        made = json.loads((folder / "certificates.json").read_text())
        assert [c["name"] for c in made] == ["rate"]
        assert [p.suffix for p in folder.iterdir() if p.name.startswith(".")] == []


TRACKIO = """
import json, sys
from trackio.sqlite_storage import SQLiteStorage
found = {}
for run in SQLiteStorage.get_runs("mine"):
    rows = SQLiteStorage.get_logs("mine", run)
    found[run] = rows
print(json.dumps(found, default=str))
"""


def test_trackio(record, certificate, tmp_path):
    pytest.importorskip("trackio", reason="needs the sinks extra")
    write = (
        "import pickle, sys\n"
        "record, certificate = pickle.load(open(sys.argv[1], 'rb'))\n"
        "record.to('trackio', project='mine', run='first', certificates=[certificate])\n"
    )
    import os
    import pickle

    file = tmp_path / "given.pkl"
    file.write_bytes(pickle.dumps((record, certificate)))
    own = os.environ | {"TRACKIO_DIR": str(tmp_path / "store"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", write, str(file)], env=own, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    read = subprocess.run(
        [sys.executable, "-c", TRACKIO], env=own, capture_output=True, text=True, check=True
    )
    found = json.loads(read.stdout.splitlines()[-1])
    assert sorted(found) == ["first seed 3", "first seed 4"]
    for seed in (3, 4):
        rows = found[f"first seed {seed}"]
        for name, quantity in (("f_x_n_ - f_", ODD), ("loss", "loss")):
            values = {r["step"]: r[name] for r in rows if name in r}
            assert values == pytest.approx(expected(record, quantity, seed))
    kept = [p for p in (tmp_path / "store").rglob("*") if p.is_file()]
    assert any('"verdict": "KEPT"' in p.read_text(errors="ignore") for p in kept)


def test_a_run_goes_to_a_tracker_and_its_folder_stays_as_it_was(tmp_path, monkeypatch, capsys):
    pytest.importorskip("tensorboard", reason="needs the sinks extra")
    monkeypatch.syspath_prepend(str(TOYS))
    words = ["--part", "noisy", "--seeds", "2", "--backend", "threading", "--out", str(tmp_path)]
    assert main(["run", "toy_study", *words, "--log-to", "tensorboard", "--json"]) == 0
    (said,) = json.loads(capsys.readouterr().out)
    runs = sorted(p.name for p in (tmp_path / "tensorboard" / "toy").iterdir())
    stamp = Path(said["folder"]).name
    assert runs == [f"{stamp} noisy seed 0", f"{stamp} noisy seed 1"]
    assert RunFolder.open(said["folder"]).changes == []


def test_names_are_told_apart():
    from surefoot._sinks.sending import _named

    found = dict(_named(["a*b", "a+b", "a_b", "A_B", "*", "x/y: z.w-1"]))
    assert found["a*b"] == "a_b"
    assert len({name.lower() for name in found.values()}) == len(found)
    assert found["x/y: z.w-1"] == "x/y: z.w-1"


def test_what_is_not_there_is_said_before_anything_runs(record, tmp_path, monkeypatch, capsys):
    with pytest.raises(UnknownNameError, match="unknown tracker 'wandb'; there are: mlflow"):
        record.to("wandb")
    monkeypatch.setattr("surefoot._sinks.sending.version_of", lambda package: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'surefoot\[sinks\]'"):
        record.to("mlflow")
    monkeypatch.syspath_prepend(str(TOYS))
    words = ["--log-to", "trackio", "--out", str(tmp_path / "runs"), "--backend", "threading"]
    assert main(["run", "toy_study", *words]) == 2
    assert "needs trackio, which is not installed" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_the_core_imports_no_tracker():
    code = (
        "import sys, surefoot.record\n"
        "assert not {'mlflow', 'tensorboard', 'trackio'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
