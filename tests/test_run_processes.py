"""Runs that are killed, ended, started twice, or have nowhere to write."""

import contextlib
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from surefoot._run.files import write_json
from surefoot._run.folder import RunFolder
from surefoot._run.in_use import alone_in, in_use
from surefoot.cli import main
from surefoot.errors import SurefootError

MODULE = '''"""Seeds that write for as long as they live."""
import os
import time
from pathlib import Path
from surefoot import Guarantee, Part, Study, StudyConfig


def run(config, seed, record):
    record.append(seed, 0, q=1.0)
    if seed == 0:
        return
    while True:
        Path(f"alive.{os.getpid()}").write_text(str(time.time()))
        time.sleep(0.02)


def large(config, seed, record):
    for t in range(200_000):
        record.append(seed, t, q=float(hash((t, seed))))


def promise(config):
    return [Guarantee("one", "q <= 1", "closed form", "q", "upper", "every run", lambda r: 1.0)]


STUDY = Study("writes", "t", "none", StudyConfig,
              (Part("one", "One", run, promise), Part("large", "Large", large, promise, sizes=("paper",))))
'''
# Enough for any machine: what is waited for comes, or the process has ended.
PATIENCE = 1200


@pytest.fixture
def here(tmp_path, monkeypatch):
    (tmp_path / "writes.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    sys.modules.pop("writes", None)


@contextlib.contextmanager
def started(*words, limit=None):
    """The command in a process of its own, with the signals of a terminal whatever started the tests."""

    def prepare():
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    process = subprocess.Popen(
        [sys.executable, "-m", "surefoot", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, preexec_fn=prepare,
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def until(condition, process):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert process.poll() is None or condition(), process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)


def gone(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return True
    # One that has ended and that nobody asked for.
    return state == "Z"


def writers(here):
    return [int(f.suffix[1:]) for f in here.glob("alive.*")]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(
    "how",
    [
        signal.SIGKILL,
        *(pytest.param(s, marks=pytest.mark.acceptance) for s in (signal.SIGTERM, signal.SIGINT)),
    ],
)
def test_workers_end_with_the_run_however_it_ends(here, how, capsys):
    with started("run", "writes", "--seeds", "3", "--jobs", "2", "--part", "one") as process:
        until(lambda: len(writers(here)) == 2, process)
        workers = writers(here)
        (folder,) = RunFolder.all(here / "runs")
        assert folder.status["state"] == "running"
        assert folder.status["pid"] == process.pid
        assert in_use(folder.path)
        # Nobody else runs it meanwhile; to look at it is allowed.
        words = ["--part", "one", "--backend", "threading", "--resume", str(folder.path)]
        assert main(["run", "writes", *words]) == 2
        assert f"is in use by process {process.pid}" in capsys.readouterr().err
        assert main(["report", "runs"]) == 0
        process.send_signal(how)
        _, said = process.communicate(timeout=PATIENCE)
    deadline = time.monotonic() + PATIENCE
    while not all(map(gone, workers)):
        assert time.monotonic() < deadline, "a worker goes on without its run"
        time.sleep(0.05)
    assert not in_use(folder.path)
    assert folder.is_done("one", 0)
    if how is signal.SIGKILL:
        assert folder.status["state"] == "killed"
        assert folder.changes is None
    else:
        assert process.returncode == 130
        assert (
            f"interrupted; what was done is in {folder.path}; to go on: surefoot run writes "
            in said
        )
        assert folder.status["state"] == "interrupted"
        assert folder.changes == []
        assert [c.verdict for c in folder.certificates()] == ["UNDECIDED"]
    assert not list(here.rglob("*.part"))


def test_a_lock_is_the_holders_alone(tmp_path):
    assert not in_use(tmp_path)
    with alone_in(tmp_path, "process 7"):
        assert in_use(tmp_path)
        with (
            pytest.raises(SurefootError, match="is in use by process 7"),
            alone_in(tmp_path, "process 7"),
        ):
            pass
    assert not in_use(tmp_path)


@pytest.mark.parametrize(
    "limit",
    [40_000, *(pytest.param(n, marks=pytest.mark.acceptance) for n in (2_000, 400_000))],
)
def test_no_room_is_one_sentence_and_leaves_no_part_of_a_file(here, limit):
    """A limit on the size of files is what a full disk looks like to a process."""
    words = ["--part", "large", "--seeds", "2", "--jobs", "1", "--backend", "threading"]
    with started("run", "writes", *words, limit=limit) as process:
        _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode in (1, 2)
    assert "Traceback" not in said
    assert "File too large" in said
    assert not list(here.rglob("*.part"))
    assert not list(here.glob("runs/*/.*"))
    for folder in RunFolder.all(here / "runs"):
        assert folder.status["state"] in ("failed", "killed")


def test_nowhere_to_write_is_one_sentence(here, capsys):
    (here / "file").touch()
    assert main(["run", "writes", "--part", "one", "--out", "file/runs"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: file/runs")
    assert "Not a directory" in said
    assert len(said.strip().splitlines()) == 1


def test_a_run_folder_appears_whole_or_not(tmp_path, monkeypatch):
    seen = []

    def write(path, data):
        seen.append(RunFolder.paths(tmp_path))
        if path.name == "second.json":
            raise OSError(28, "No space left on device", str(path))
        write_json(path, data)

    monkeypatch.setattr("surefoot._run.folder.write_json", write)
    with pytest.raises(OSError, match="No space left"):
        RunFolder.create(tmp_path, "toy", {"config.json": {}, "second.json": {}})
    assert seen == [[], []]
    assert list((tmp_path / "toy").iterdir()) == []
    # What a kill at that moment leaves is no run.
    (tmp_path / "toy" / ".0123.new").mkdir()
    (tmp_path / "toy" / ".0123.new" / "config.json").write_text("{}")
    assert RunFolder.paths(tmp_path) == []
