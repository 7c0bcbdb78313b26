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
from beartype import BeartypeConf, beartype
from hypothesis import settings

SHAPED = re.compile(r"\b(Float|Int|UInt|Integer|Bool|Complex|Inexact|Real|Num|Shaped)\d*\[")


# An int is a float where the language says so.
typed = beartype(conf=BeartypeConf(is_pep484_tower=True))


def check_shapes(function):
    """Beartype, for functions whose hints speak of shapes; mypy sees to all other types."""
    hints = getattr(function, "__annotations__", {}).values()
    return typed(function) if SHAPED.search(" ".join(map(str, hints))) else function


# The import hook takes its checker by name, and must be there before surefoot is imported. The worker
# processes of a study are new interpreters without it: they run the library as users do.
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


@pytest.fixture
def unchecked(monkeypatch):
    """Turn the checks of shapes off: for tests of what the library itself says to a wrong one."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


@pytest.fixture
def measured(record_property):
    """`measured(check, required, value)` puts a row into the table that ends the report."""

    def note(check, required, value):
        record_property("measured", (check, str(required), str(value)))

    return note


def pytest_terminal_summary(terminalreporter):
    reports = [r for kind in ("passed", "failed") for r in terminalreporter.stats.get(kind, ())]
    rows = [row for r in reports for name, row in r.user_properties if name == "measured"]
    if rows:
        rows = [("check", "required", "measured"), *sorted(map(tuple, rows))]
        widths = [max(len(row[i]) for row in rows) for i in range(3)]
        terminalreporter.section("measured")
        for row in rows:
            line = " | ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True))
            terminalreporter.write_line(line.rstrip())
