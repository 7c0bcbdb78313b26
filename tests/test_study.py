"""Studies through their real door: seeds in processes, folders on disk, resume, crash, interrupt."""

import dataclasses
import importlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from surefoot._run.execute import run_study
from surefoot._run.folder import RunFolder
from surefoot.errors import SurefootError, UnknownNameError
from surefoot.guarantee import Verdict
from surefoot.study import (
    Execution,
    Part,
    Study,
    StudyConfig,
    check_backend,
    config_of,
    execute,
    load_study,
    reproduce,
    start,
    study_names,
    study_title,
)

TOYS = Path(__file__).parent / "toys"


@pytest.fixture
def study(monkeypatch):
    monkeypatch.syspath_prepend(str(TOYS))
    monkeypatch.setenv("PYTHONPATH", str(TOYS))
    return load_study("toy_study")


def run(study, tmp_path, **changes):
    config = study.config(**changes)
    execution = Execution(out=tmp_path / "runs", backend="threading", jobs=2)
    folder = start(study, config, execution)
    return folder, config, execute(study, config, folder, execution)


def test_verdicts_and_folder(study, tmp_path):
    folder, _, certificates = run(study, tmp_path, part=("noisy", "planted"))
    by_name = {c.name: c for c in certificates}
    assert by_name["noisy descent"].verdict is Verdict.KEPT
    assert len(by_name["noisy descent"].seeds) == 8
    assert by_name["too good"].verdict is Verdict.BROKEN
    assert not by_name["too good"].surprise
    again = RunFolder.open(folder.path)
    assert [c.to_json() for c in again.certificates()] == [c.to_json() for c in certificates]
    assert again.record("noisy").seeds == list(range(8))
    assert again.status["state"] == "finished"
    assert dict(again.tables("noisy"))["last"].shape == (1, 1)
    assert dict(again.figures("noisy"))["gap"]["data"]
    with pytest.raises(UnknownNameError, match="there are: noisy, planted"):
        again.record("nope")


def test_loky_gives_the_same_record_as_threads(study, tmp_path):
    threads, config, _ = run(study, tmp_path, part=("noisy",), seeds=2)
    execution = Execution(out=tmp_path / "loky", backend="loky", jobs=2)
    processes = start(study, config, execution)
    execute(study, config, processes, execution)
    assert processes.record("noisy").frame().equals(threads.record("noisy").frame())


OWN = """
from surefoot import Guarantee, Part, Study, StudyConfig

def run(config, seed, record):
    record.append(seed, 0, f={value})

def promises(config):
    return [Guarantee("f is small", "f <= 1", "none", "f", "upper", "every run", lambda record: 1.0)]

STUDY = Study("own", "One of the user's", "none", StudyConfig,
    (Part("only", "Only one", run, promises, deterministic=True),))
"""


def test_workers_of_an_earlier_run_do_not_run_what_is_elsewhere_or_has_changed(
    tmp_path, monkeypatch
):
    """One process, three runs: in a folder, in another one, and there again after an edit and a reload."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    found = []
    for folder, value in (("a", 0.25), ("b", 0.5), ("b", 2.125)):
        (tmp_path / folder).mkdir(exist_ok=True)
        file = tmp_path / folder / "studyofmine.py"
        file.write_text(OWN.format(value=value))
        monkeypatch.chdir(file.parent)
        if value > 1:
            importlib.reload(sys.modules["studyofmine"])
        made = run_study("studyofmine", backend="loky", jobs=2)
        assert made.path.absolute().is_relative_to(file.parent)
        found.append((float(made.record("only").constant("f")[0]), made.certificates()[0].verdict))
    assert found == [(0.25, Verdict.KEPT), (0.5, Verdict.KEPT), (2.125, Verdict.BROKEN)]


def drawn(config, seed, record):
    """What a layer of torch draws, where nobody gives it a generator."""
    record.append(seed, 0, weight=torch.nn.Linear(1, 1).weight.item())


def test_what_nobody_seeded_follows_the_seed_too(tmp_path):
    part = Part("drawn", "Draws", run=drawn, guarantees=lambda config: (), seeds={"quick": 2})
    made = Study("drawing", "Draws", "none", StudyConfig, (part,))
    found = []
    for before in (1, 2):
        torch.manual_seed(before)
        folder = run_study(made, backend="threading", jobs=1, out=tmp_path)
        found.append(folder.record("drawn")["weight"])
    assert found[0].tolist() == found[1].tolist()
    assert found[0][0, 0] != found[0][1, 0]  # another seed


def test_crashed_seed_leaves_the_others_and_resume_mends_it(study, tmp_path, monkeypatch):
    folder, config, certificates = run(study, tmp_path, part=("crash",))
    assert folder.status["state"] == "failed"
    assert [(f["part"], f["seed"]) for f in folder.status["failed"]] == [("crash", 1)]
    assert "the toy breaks at seed 1" in (folder.seed_folder("crash", 1) / "error.txt").read_text()
    # A mean over the seeds that survived proves nothing.
    assert certificates[0].verdict is Verdict.UNDECIDED
    assert "seeds 1 did not end" in certificates[0].reason
    kept = folder.seed_folder("crash", 0) / "done.json"
    before = kept.stat().st_mtime_ns
    mended = tmp_path / "mended"
    mended.touch()
    monkeypatch.setenv("TOY_MENDED", str(mended))
    execution = Execution(out=tmp_path / "runs", backend="threading")
    certificates = execute(study, config_of(study, folder), folder, execution)
    assert certificates[0].verdict is Verdict.KEPT
    assert certificates[0].seeds == [0, 1, 2]
    assert kept.stat().st_mtime_ns == before
    assert folder.status["state"] == "finished"
    assert dataclasses.asdict(config_of(study, folder)) == dataclasses.asdict(config)


def test_two_runs_never_share_a_folder(study, tmp_path):
    execution = Execution(out=tmp_path)
    folders = {start(study, study.config(), execution).path for _ in range(5)}
    assert len(folders) == 5


def test_reproduce_names_every_changed_flag(study):
    config = study.config(lr=0.25, part=("noisy",), seeds=3)
    assert reproduce(study, config) == "surefoot run toy_study --part noisy --seeds 3 --lr 0.25"


def test_unknown_names(study):
    with pytest.raises(UnknownNameError, match="unknown study 'nesterof'.*Did you mean 'nesterov'"):
        load_study("nesterof")
    with pytest.raises(UnknownNameError, match="unknown backend 'spark'; there are: dask, loky"):
        check_backend("spark")
    with pytest.raises(UnknownNameError, match="unknown part of study toy 'nope'"):
        study.chosen(study.config(part=("nope",)))
    with pytest.raises(SurefootError, match="has no STUDY"):
        load_study("json")
    with pytest.raises(UnknownNameError, match="verdict that part p announces 'BROKN'.*'BROKEN'"):
        Part("p", "P", lambda *_: None, expects={"halves": "BROKN"})
    announced = Part("p", "P", lambda *_: None, expects={"halves": "BROKEN"}).expects
    assert announced["halves"] is Verdict.BROKEN


def test_two_parts_of_one_name_are_refused(study):
    (part, *_) = study.parts
    with pytest.raises(ValueError, match=f"2 parts of the name '{part.name}'"):
        dataclasses.replace(study, parts=(part, part))


def test_a_module_that_is_no_python_is_named(tmp_path, monkeypatch):
    (tmp_path / "not_python.py").write_text("def f(:\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(SurefootError, match="cannot be imported: .*not_python.py, line 1"):
        load_study("not_python")


def test_ray_is_refused_where_it_would_wait_for_ever(study, tmp_path, monkeypatch):
    monkeypatch.setattr("surefoot._run.backends.version_of", lambda package: "1")
    monkeypatch.setattr(sys, "executable", "/a folder/bin/python")
    execution = Execution(out=tmp_path, backend="ray")
    folder = start(study, study.config(part=("planted",)), execution)
    with pytest.raises(SurefootError, match="whose path holds a space, got /a folder/bin/python"):
        execute(study, study.config(part=("planted",)), folder, execution)


def test_missing_backend_says_what_to_install(study, tmp_path, monkeypatch):
    # Flower's simulation brings ray.
    monkeypatch.setattr("surefoot._run.backends.version_of", lambda package: None)
    for backend, package in (("ray", "ray"), ("dask", "distributed")):
        execution = Execution(out=tmp_path, backend=backend)
        folder = start(study, study.config(part=("planted",)), execution)
        with pytest.raises(SurefootError, match=rf"needs {package}.*\[cluster\]"):
            execute(study, study.config(part=("planted",)), folder, execution)


def test_registry_reads_titles_without_importing():
    code = (
        "import sys; from surefoot.study import study_names, study_title\n"
        "assert all(study_title(n) for n in study_names())\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=600)
    assert "nesterov" in study_names()
    assert study_title("nesterov")


SLOW = """
import sys, time
sys.path.insert(0, {toys!r})
import toy_study
from surefoot.study import Execution, Part, Study, StudyConfig, execute, start
from pathlib import Path
def slow(config, seed, record):
    record.append(seed, 0, gap=1.0)
    if seed:
        time.sleep(60)
    record.append(seed, 1, gap=0.5)
study = Study("slow", "slow", "none", StudyConfig, (Part("one", "one", slow),), module="slow")
sys.modules["slow"] = type(sys)("slow"); sys.modules["slow"].STUDY = study
sys.modules["slow"].__spec__ = __import__("importlib.machinery").machinery.ModuleSpec("slow", None)
execution = Execution(out=Path({out!r}), backend="threading", jobs=1)
folder = start(study, StudyConfig(seeds=2), execution)
execute(study, StudyConfig(seeds=2), folder, execution)
"""


def test_interrupt_leaves_a_valid_folder(tmp_path):
    code = SLOW.format(toys=str(TOYS), out=str(tmp_path))
    process = subprocess.Popen(
        [sys.executable, "-c", code], stderr=subprocess.PIPE, env={**os.environ}, text=True,
        # Started in the background, a test run has the signal ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    deadline = time.monotonic() + 1200
    while not list(tmp_path.glob("slow/*/seeds/one.0/done.json")):
        assert time.monotonic() < deadline, process.stderr.read()
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=1200)
    assert "KeyboardInterrupt" in errors
    folder = RunFolder.all(tmp_path)[0]
    assert folder.status["state"] == "interrupted"
    assert 0 in folder.record("one").seeds
    assert folder.is_done("one", 0)
    assert not folder.is_done("one", 1)
