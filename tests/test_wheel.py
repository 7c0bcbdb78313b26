"""A wheel builds, installs into an empty environment and runs there without any extra."""

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
    parts = ("--part", "benign", "three-or-eight")
    done = run(python, "-m", "surefoot.cli", "run", "nesterov", *parts, cwd=here)
    assert "KEPT" in done.stdout
    assert "NOT_PROMISED" in done.stdout
    assert (here / "runs" / "index.html").exists()
    done = run(python, "-c", "import surefoot; print(surefoot.__file__)", cwd=here)
    assert str(empty) in done.stdout

    # Without extras all studies run as far as they can, and name what they skip.
    done = run(python, "-m", "surefoot.cli", "run", "all", "--out", "all", cwd=here)
    for extra in ("llm", "privacy"):
        assert f"surefoot[{extra}]" in done.stderr
    assert "nesterov" in done.stdout
    assert "crashed" not in done.stdout + done.stderr

    def one_sentence(*words):
        with pytest.raises(subprocess.CalledProcessError) as failed:
            run(python, *words, cwd=here)
        last = failed.value.stderr.strip().splitlines()[-1]
        assert "which is not installed; run: pip install 'surefoot[" in last, failed.value.stderr
        return failed.value

    here.joinpath("app").mkdir()
    here.joinpath("app", "pyproject.toml").write_text("[tool.flwr.app]\n")
    for module in ("lora.federated", "reparam.strategy", "zeroth_order.trainer", "lora.trainer"):
        one_sentence("-c", f"import surefoot.{module}")
    one_sentence("-c", "from surefoot.federated import DeterministicFedAvg")
    one_sentence(
        "-c", "from surefoot.privacy import standard; standard(1.0, 0.01, 10).epsilon(1e-5)"
    )
    refused = one_sentence("-m", "surefoot.cli", "federate", "simulate", "app")
    assert refused.returncode == 2
    assert "Traceback" not in refused.stderr
