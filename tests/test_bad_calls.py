"""Random calls with one bad argument: helpful errors, no silent NaN, no impossible value taken.

The generator runs in a process of its own, as tests check shapes by themselves.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import surefoot

SCRIPT = Path(__file__).parent / "faults" / "bad_calls.py"
ROOT = Path(surefoot.__path__[0]).parents[0]
# Cheap to import and to call; the others are tried in the acceptance test.
QUICK = ("core", "nesterov", "barycenter", "privacy", "in_context", "data", "kan")


def run(*words):
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *words], capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert "all  " in done.stdout, done.stdout + done.stderr
    tried, _, unhelpful, silent, _ = map(int, done.stdout.splitlines()[-1].split()[1:])
    return done.returncode, tried, unhelpful, silent, done.stdout


def test_some_bad_calls():
    code, tried, unhelpful, silent, said = run(
        "--seed", "1", "--calls", str(3 * len(QUICK)), "--package", *QUICK
    )
    assert (code, tried, silent) == (0, 3 * len(QUICK), 0), said
    assert unhelpful <= 0.03 * tried, said


PLANTED = """
import sys
from faults import bad_calls

def careless(rate: float, count: int = 3) -> float:
    if count == 0:
        raise IndexError("out of range")
    return float("nan") if isinstance(rate, dict) else 1.0

calls = {"careless": (careless, lambda: {"rate": 0.5, "count": 3})}
bad_calls.valid_calls = lambda package: (calls, [])
sys.exit(bad_calls.main(["--package", "planted", "--all"]))
"""


def test_a_function_that_checks_nothing_is_found():
    done = subprocess.run(
        [sys.executable, "-c", PLANTED], capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(SCRIPT.parents[1]), str(ROOT)])},
    )  # fmt: skip
    assert done.returncode == 1, done.stdout + done.stderr
    for line in (
        "silent planted.careless(rate=nan)",
        "silent planted.careless(rate=dict) | NaN in float",
        "unhelpful planted.careless(count=zero) | IndexError",
        "silent planted.careless(count=half)",
    ):
        assert line in done.stdout


@pytest.mark.acceptance
def test_every_bad_call_once(measured):
    """Of which any seed draws some."""
    code, tried, unhelpful, silent, said = run("--all")
    measured(f"bad calls, all {tried}: unhelpful and silent", "0, 0", (unhelpful, silent))
    assert (code, unhelpful, silent) == (0, 0, 0), said
    assert tried > 15_000


@pytest.mark.acceptance
def test_every_valid_call_is_valid():
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--valid"], capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert "Error: " not in done.stdout, done.stdout + done.stderr
