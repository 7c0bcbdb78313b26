"""The examples run as a newcomer would run them: in an empty folder, with only the extras they name."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from surefoot.study import study_names

ROOT = Path(__file__).parents[1]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
MODULES = {"dp-accounting": "dp_accounting", "POT": "ot", "pytorch-optimizer": "pytorch_optimizer"}
NEEDS = re.compile(r"surefoot\[([\w,]+)\]")
# A module that is None in sys.modules is not installed, as far as an import can tell.
RUN = """
import runpy, sys
sys.modules.update(dict.fromkeys({missing}))
runpy.run_path({path!r}, run_name="__main__")
"""


def needs(path):
    """The extras that an example's docstring names."""
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return [extra for found in NEEDS.findall(text) for extra in found.split(",")]


def modules(extra):
    names = [re.match(r"[\w-]+", requirement)[0] for requirement in EXTRAS[extra]]
    return {MODULES.get(n, n.replace("-", "_")) for n in names if n != "surefoot"}


@pytest.mark.acceptance
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.stem)
def test_an_example_runs_with_what_it_names(path, tmp_path):
    named = needs(path)
    there = {m for extra in named for m in modules(extra)}
    missing = {m for e in ("llm", "federated", "privacy", "bench") for m in modules(e)} - there
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", RUN.format(missing=sorted(missing), path=str(path))],
        cwd=tmp_path, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert re.search("KEPT|BROKEN|UNDECIDED|VACUOUS|NOT_PROMISED", done.stdout)


@pytest.mark.parametrize("study", study_names())
def test_every_method_has_an_example(study):
    assert ROOT / "examples" / f"{study}.py" in EXAMPLES
