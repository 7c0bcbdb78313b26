"""Calls with arguments that are not allowed; `tests/faults/bad_calls.py` makes them and counts."""

from __future__ import annotations

import importlib
import importlib.util

from tests.soak.table import Trials

WHERE = "tests.faults.bad_calls"


def there() -> bool:
    return importlib.util.find_spec(WHERE) is not None


def bad_calls(seed: int) -> Trials:
    """What `trials(seed)` of that module yields: an outcome and what was called."""
    yield from importlib.import_module(WHERE).trials(seed)
