"""Seeds on a real Ray and a real Dask cluster of two workers on this machine."""

import contextlib
import os
import re
import subprocess
import sys

import pytest

from surefoot import Record
from surefoot._run.backends import TRIES, Work, results
from surefoot._run.execution import Execution
from surefoot._run.folder import RunFolder
from surefoot.errors import MissingExtraError, SurefootError

MODULE = '''"""Seeds of which one ends the process that runs it: once, or always."""
import os
import signal
import time
from pathlib import Path
import numpy as np
import torch
from surefoot import Guarantee, Part, Study, StudyConfig


def run(config, seed, record):
    mark = Path(__file__).with_name("died")
    if seed == 1 and "DIES" in os.environ and not mark.exists():
        mark.touch()
        time.sleep(0.2)
        os.kill(os.getpid(), signal.SIGKILL)
    x = torch.from_numpy(np.random.default_rng(seed).standard_normal((200, 200)))
    for step in range(5):
        x = x @ torch.linalg.inv(torch.eye(200, dtype=x.dtype) + x.T @ x)
        record.append(seed, step, q=float(x.sum()), threads=torch.get_num_threads())


def always(config, seed, record):
    if seed == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    record.append(seed, 0, q=1.0)


FOUR = {"quick": 4, "standard": 4, "paper": 4}
STUDY = Study("dies", "t", "none", StudyConfig,
              (Part("one", "One", run, seeds=FOUR),
               Part("always", "Always", always, seeds=FOUR, sizes=("paper",))))
'''
PACKAGES = {"ray": "ray", "dask": "distributed"}
CLUSTERS = {
    "ray": (
        "import ray\n"
        "ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)\n"
        "print(ray.get_runtime_context().gcs_address, flush=True)\n"
    ),
    "dask": (
        "from distributed import LocalCluster\n"
        "if __name__ == '__main__':\n"
        "    cluster = LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None)\n"
        "    print(cluster.scheduler_address, flush=True)\n"
    ),
}
ours = pytest.mark.parametrize("backend", ["ray", "dask"])


@pytest.fixture
def here(tmp_path, monkeypatch):
    (tmp_path / "dies.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def needs(backend):
    pytest.importorskip(PACKAGES[backend], reason="needs the cluster extra")
    if backend == "ray" and " " in sys.executable:
        pytest.skip("Ray starts no worker from a path with a space")


def run(*words, part="one", environment=None):
    command = [sys.executable, "-m", "surefoot", "run", "dies", "--part", part, *words]
    done = subprocess.run(
        command, capture_output=True, text=True, env=os.environ | (environment or {}), timeout=1200
    )
    return done.returncode, done.stderr


def newest():
    return RunFolder.open(RunFolder.paths("runs")[0])


def numbers(folder):
    record: Record = folder.record("one")
    assert set(record["threads"].ravel()) == {1.0}
    return record["q"].tobytes()


@pytest.mark.parametrize(
    "backend", ["loky", pytest.param("ray", marks=pytest.mark.acceptance), "dask"]
)
def test_same_bits_with_progress_and_a_killed_worker_is_named(here, backend):
    if backend in PACKAGES:
        needs(backend)
    assert run("--backend", "threading", "--jobs", "1")[0] == 0
    expected = numbers(newest())
    code, said = run("--backend", backend, "--jobs", "2", environment={"DIES": "once"})
    assert code == 0, said
    assert numbers(newest()) == expected
    assert re.search(r"orker \S+( on \S+)? died \(.*\): seed 1 of part one is run again", said), (
        said
    )
    assert (here / "died").exists()
    folder = newest()
    assert folder.status["state"] == "finished"
    assert folder.changes == []
    assert not list(folder.path.rglob("worker.json"))
    counts = re.findall(r"(\d)/4 done", said)
    assert counts == sorted(counts)
    assert "4" in counts


@pytest.mark.acceptance
@pytest.mark.parametrize("backend", ["loky", "ray", "dask"])
def test_a_seed_that_always_ends_its_worker_is_given_up_and_the_others_stay(here, backend):
    if backend in PACKAGES:
        needs(backend)
    code, said = run("--backend", backend, "--jobs", "2", part="always")
    assert code == 1, said
    folder = newest()
    failed = {f["seed"]: f["error"] for f in folder.status["failed"]}
    assert 1 in failed
    if backend != "loky":
        # Loky ends all its workers with the one that died, and cannot tell which it was.
        assert sorted(failed) == [1]
        assert all(folder.is_done("always", seed) for seed in (0, 2, 3))


@contextlib.contextmanager
def cluster(backend):
    """A cluster that somebody else has started."""
    process = subprocess.Popen(
        [sys.executable, "-c", CLUSTERS[backend] + "    input()\n" if backend == "dask" else
         CLUSTERS[backend] + "input()\n"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    try:
        for line in process.stdout:
            if found := re.search(r"((?:tcp://)?[\d.]+:\d+)$", line.strip()):
                yield found[1]
                break
        process.stdin.write("\n")
        process.stdin.close()
        process.wait(timeout=120)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.mark.acceptance
@ours
def test_a_cluster_at_an_address(here, backend):
    needs(backend)
    assert run("--backend", "threading")[0] == 0
    expected = numbers(newest())
    with cluster(backend) as address:
        code, said = run("--backend", backend, "--address", address)
        assert code == 0, said
        assert numbers(newest()) == expected
        # It is left as it was found.
        assert run("--backend", backend, "--address", address)[0] == 0


@pytest.mark.acceptance
@ours
def test_nobody_at_the_address_is_one_sentence(here, backend):
    needs(backend)
    code, said = run("--backend", backend, "--address", "127.0.0.1:9")
    assert code == 2
    assert "answers at 127.0.0.1:9" in said
    assert "Traceback" not in said


@ours
def test_a_missing_package_says_what_to_install_and_nothing_is_written(here, backend, monkeypatch):
    monkeypatch.setattr("surefoot._run.backends.version_of", lambda package: None)
    from surefoot._run.backends import check_backend

    with pytest.raises(MissingExtraError, match=r"pip install 'surefoot\[cluster\]'"):
        check_backend(backend)


@pytest.mark.parametrize("backend", ["loky", "threading"])
def test_an_address_is_of_a_cluster(backend):
    with pytest.raises(SurefootError, match="address is of a cluster, for backend ray or dask"):
        Execution(backend=backend, address="tcp://127.0.0.1:9")


def test_files_that_do_not_come_back_are_missed(tmp_path, monkeypatch):
    """A worker on another machine wrote into a folder of its own."""
    from surefoot._run.seed import SeedResult

    folder = RunFolder(tmp_path)
    work = Work("kan", None, folder, os.getpid(), [("one", 0)])
    found = work.ended(SeedResult("one", 0, 1.0))
    assert "workers need a file system that they share" in found.error
    assert work.ended(SeedResult("one", 0, 1.0, "crashed")).error == "crashed"


def test_a_worker_is_named_once(tmp_path):
    from surefoot._run.files import write_json

    folder = RunFolder(tmp_path)
    folder.seed_folder("one", 3).mkdir(parents=True)
    write_json(folder.seed_folder("one", 3) / "worker.json", {"pid": 7, "host": "far"})
    work = Work("kan", None, folder, os.getpid(), [("one", 3)])
    assert work.worker("one", 3) == "worker 7 on far"
    assert work.worker("one", 3) is None
    assert TRIES >= 2
    assert list(results("threading", Work("kan", None, folder, 0, []), 1, None)) == []
