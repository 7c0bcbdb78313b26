"""Calls with one argument that is not allowed, drawn by `tests/faults/bad_calls.py`."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
from pathlib import Path

from tests.soak.table import Trials

from surefoot import errors

WHERE = "tests.faults.bad_calls"
WORDS = {"helpful": "named", "legal": "whole", "silent": "silent"}
# An error of these that does not name the argument is unhelpful; any other is somebody else's.
OURS = ("ValueError", "TypeError", *(name for name in vars(errors) if name.endswith("Error")))


def there() -> bool:
    return importlib.util.find_spec(WHERE) is not None


def bad_calls(folder: Path, seed: int) -> Trials:
    """One call a trial, package by package in turn, with `folder` as the place to write to."""
    made = importlib.import_module(WHERE)
    for case in made.drawn(seed, 1_000_000, made.PACKAGES):
        with contextlib.chdir(folder):
            found, said = made.tried(*case)
        ours = said.partition(":")[0] in OURS
        package, name, argument, label = case
        word = WORDS.get(found, "lost" if ours else "traceback")
        yield word, f"{package}.{name}({argument}={label}): {said}"
