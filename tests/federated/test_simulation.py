"""Flower's simulation on Ray: other processes, other orders of arrival, the reference's bits."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import torch
from safetensors.torch import load_file
from tests.federated.bits import same_bits
from tests.federated.simulate import FAULT, PARTITIONS, RUNS, SETTINGS

from surefoot.federated import federate
from surefoot.federated.launcher import environment
from surefoot.reparam.doors.flower import repopt_task

MARK = "SUREFOOT_TEST_SIMULATION"


def marked(value):
    """The processes that inherited this mark, wherever they moved to: Ray's daemons leave their parents."""
    found, word = [], f"{MARK}={value}".encode()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
            if state != "Z" and word in (folder / "environ").read_bytes().split(b"\0"):
                found.append(int(folder.name))
        except OSError:
            continue
    return found


def interpreter(folder):
    """This one, by a path without spaces: Ray starts its workers by a shell line that quotes nothing."""
    if " " not in sys.executable:
        return sys.executable
    link = folder / "environment"
    link.symlink_to(sys.prefix)
    return str(link / Path(sys.executable).relative_to(sys.prefix))


def simulate(out):
    """Run the script in a process of its own and see that nothing of it stays: (log, seconds)."""
    value, started = str(os.getpid()), time.monotonic()
    script = Path(__file__).with_name("simulate.py")
    with (out / "log").open("wb") as log:
        process = subprocess.Popen(
            [interpreter(out), str(script), str(out)], env={**environment(out), MARK: value},
            stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
        )  # fmt: skip
        try:
            code = process.wait(900)
        finally:
            deadline = time.monotonic() + 900
            while (left := marked(value)) and time.monotonic() < deadline:
                time.sleep(0.1)
            for pid in left:
                os.kill(pid, signal.SIGKILL)
    said = (out / "log").read_text(errors="replace")
    assert code == 0, said[-3000:]
    assert not left, f"{len(left)} processes outlived the simulation"
    return said, time.monotonic() - started


def test_ray_equals_the_reference_bit_for_bit_and_names_errors(tmp_path, measured):
    """With all, with half, and with a client that fails: one test, for one start of Ray."""
    said, seconds = simulate(tmp_path)
    for name, (count, fraction) in RUNS.items():
        state = load_file(tmp_path / name)
        rounds = json.loads((tmp_path / f"{name}.json").read_text())["rounds"]
        if name == "fault":
            # What the checks below would see, were a client to fail unplanned.
            assert [list(r["lost"]) for r in rounds] == [[], [], ["1"]]
            assert FAULT in rounds[2]["lost"]["1"]
            assert rounds[2]["partitions"] == [0, 2, 3]
            continue
        # A client's error would leave the round to the others: nobody may be missing.
        assert [(r["lost"], r["rejected"]) for r in rounds] == [({}, {})] * count, said[-3000:]
        assert [len(r["partitions"]) for r in rounds] == [PARTITIONS * fraction] * count
        task = repopt_task(SETTINGS)
        expected = federate(task, count, PARTITIONS, fraction=fraction, extra=task.extra(0))
        assert same_bits(tmp_path / name, expected)
        start = task.initial(0)
        assert not any(torch.equal(v, start[k]) for k, v in state.items() if k.endswith("weight"))
        measured("8.11 Ray = reference", "bitwise", f"fraction {fraction}: yes ({seconds:.0f} s)")
