"""What every test runs under: checked shapes, one thread, no network, reproducible properties."""

import os
import re
import sys
from types import ModuleType

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[name] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"

import jaxtyping
import pytest
from beartype import beartype
from hypothesis import settings

SHAPED = re.compile(r"\b(Float|Int|UInt|Integer|Bool|Complex|Inexact|Real|Num|Shaped)\d*\[")


def check_shapes(function):
    """Beartype, for functions whose hints speak of shapes; mypy sees to all other types."""
    hints = getattr(function, "__annotations__", {}).values()
    return beartype(function) if SHAPED.search(" ".join(map(str, hints))) else function


# The import hook takes its checker by name. It must be there before surefoot is imported anywhere;
# worker processes of a study are new interpreters, and run the library as users do.
checker = ModuleType("surefoot_shapes")
checker.check_shapes = check_shapes
sys.modules["surefoot_shapes"] = checker
jaxtyping.install_import_hook("surefoot", "surefoot_shapes.check_shapes")

settings.register_profile("house", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "house")


@pytest.fixture(autouse=True)
def no_network(request, monkeypatch):
    """Only acceptance tests download; the others take data that is there already, or make it."""
    if request.node.get_closest_marker("acceptance") is None:
        monkeypatch.setenv("PIP_NO_INDEX", "1")
        monkeypatch.setenv("npm_config_offline", "true")
