"""A wheel builds, installs into an empty environment and runs the demo of the first method."""

import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.acceptance
def test_wheel_in_an_empty_environment(tmp_path):
    def run(*words, **kwargs):
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        return subprocess.run(
            [str(w) for w in words], check=True, timeout=900, env=environment,
            capture_output=True, text=True, **kwargs,
        )  # fmt: skip

    run(sys.executable, "-m", "build", "--wheel", "--outdir", tmp_path / "dist", ROOT)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    empty = tmp_path / "an empty place"
    venv.create(empty, with_pip=True)
    python = empty / "bin" / "python"
    run(python, "-m", "pip", "install", "-c", ROOT / "constraints.txt", wheel)
    here = tmp_path / "elsewhere"
    here.mkdir()
    done = run(python, "-m", "surefoot.cli", "run", "nesterov", "--part", "S1", "S6", cwd=here)
    assert "KEPT" in done.stdout
    assert "NOT_PROMISED" in done.stdout
    assert (here / "runs" / "index.html").exists()
    done = run(python, "-c", "import surefoot; print(surefoot.__file__)", cwd=here)
    assert str(empty) in done.stdout
