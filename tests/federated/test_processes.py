"""Nothing of a federation outlives it, however it ends."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from surefoot.federated import _processes
from surefoot.federated._processes import descendants, end, started

APP = Path(__file__).parents[2] / "apps" / "repopt"
# Enough for any machine.
PATIENCE = 1200
# A server whose helper has a session of its own and does not end when asked to.
TREE = """
import subprocess, sys, time
helper = "import signal, time; signal.signal(15, signal.SIG_IGN); print(1, flush=True); time.sleep(5000)"
child = subprocess.Popen([sys.executable, "-c", helper], start_new_session=True, stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
time.sleep(5000)
"""

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@pytest.fixture
def tree():
    """A process and its helper, which are ended whatever a test does."""
    server = subprocess.Popen([sys.executable, "-c", TREE], stdout=subprocess.PIPE, text=True)
    helper = int(server.stdout.readline())
    yield server, helper
    for pid in (server.pid, helper):
        if started(pid) is not None:
            os.kill(pid, signal.SIGKILL)
    server.communicate()


def until_gone(*pids):
    deadline = time.monotonic() + PATIENCE
    while any(started(pid) is not None for pid in pids):
        assert time.monotonic() < deadline, "still there"
        time.sleep(0.05)


def guardian():
    return subprocess.Popen(
        [sys.executable, "-I", _processes.__file__], stdin=subprocess.PIPE, start_new_session=True
    )


def tell(guard, **said):
    guard.stdin.write(json.dumps(said).encode() + b"\n")
    guard.stdin.flush()


def test_a_family_is_ended_with_the_helpers_that_ignore_the_request(tree):
    server, helper = tree
    assert (helper, started(helper)) in set(descendants(server.pid))
    end({(server.pid, started(server.pid))}, seconds=0.5)
    server.wait(PATIENCE)
    until_gone(helper)


def test_another_process_of_a_reused_number_is_left_alone(tree):
    server, helper = tree
    end({(server.pid, "0"), (helper, "0")}, seconds=0.1)
    assert started(server.pid) is not None
    assert started(helper) is not None


def test_the_guardian_ends_and_removes_all_when_its_owner_is_gone(tree, tmp_path):
    server, helper = tree
    kept, removed = tmp_path / "kept", tmp_path / "removed"
    for folder in (kept, removed):
        folder.mkdir()
        (folder / "key").touch()
    guard = guardian()
    tell(guard, folder=str(removed))
    tell(guard, process=[server.pid, started(server.pid)])
    guard.stdin.close()
    server.wait(PATIENCE)
    until_gone(helper)
    assert guard.wait(PATIENCE) == 0
    assert not removed.exists()
    assert (kept / "key").exists()


def test_helpers_of_a_server_that_was_killed_are_ended(tree):
    server, helper = tree
    guard = guardian()
    tell(guard, process=[server.pid, started(server.pid)])
    # It looks before it reads again: what it was told a second time it has seen once.
    time.sleep(4 * _processes.LOOK)
    server.kill()
    server.wait(PATIENCE)
    until_gone(helper)
    tell(guard, done=True)
    guard.stdin.close()
    assert guard.wait(PATIENCE) == 0


def test_a_federation_that_ended_well_is_left_alone(tree, tmp_path):
    server, helper = tree
    guard = guardian()
    tell(guard, folder=str(tmp_path))
    tell(guard, process=[server.pid, started(server.pid)])
    tell(guard, done=True)
    assert guard.wait(PATIENCE) == 0
    guard.stdin.close()
    assert tmp_path.exists()
    assert started(server.pid) is not None
    assert started(helper) is not None


@pytest.mark.acceptance
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("command", ["simulate", "up"])
def test_a_real_federation_leaves_nothing(tmp_path, how, command):
    """No process, no temporary folder, and the result of before is still there."""
    out = tmp_path / "out.safetensors"
    out.write_text("of before")
    # A path that is too long for Ray's sockets, as a user's may be.
    temporary = tmp_path / ("t" * 60)
    temporary.mkdir()
    before = set(Path("/tmp").glob("ray-*"))
    words = [
        "federate",
        command,
        str(APP),
        "--rounds",
        "500",
        "--out",
        str(out),
        "--set",
        "data=digits",
    ]
    process = subprocess.Popen(
        [sys.executable, "-m", "surefoot", *words], env={**os.environ, "TMPDIR": str(temporary)},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGTERM, signal.SIG_DFL),
    )  # fmt: skip
    deadline = time.monotonic() + PATIENCE
    while not any("ClientAppActor" in _command(pid) or "flwr-clientapp" in _command(pid)
                  for pid, _ in descendants(process.pid)):  # fmt: skip
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.2)
    family = [pid for pid, _ in descendants(process.pid)]
    assert len(family) >= 3
    process.send_signal(how)
    said = process.communicate(timeout=PATIENCE)[0]
    until_gone(*family)
    while left := {*temporary.iterdir(), *Path("/tmp").glob("ray-*")} - before:
        assert time.monotonic() < deadline, left
        time.sleep(0.2)
    assert out.read_text() == "of before"
    if how is signal.SIGTERM:
        assert process.returncode == 130
        assert "Traceback" not in said


def _command(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""
