"""Argument checks: a ValueError that names the argument, what is allowed, and what was given."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

Array = np.ndarray
Number = float | Sequence[float] | Float[Array, " steps"]
SMALLEST_DELTA = 1e-300


def real(name: str, given: Any) -> float:
    """A number that is not NaN."""
    try:
        if isinstance(given, (bool, np.bool_, str)):
            raise TypeError
        value = float(given)
    except (TypeError, ValueError):
        raise ValueError(f"{name} must be a number, got {given!r}") from None
    if math.isnan(value):
        raise ValueError(f"{name} must be a number, got {value}")
    return value


def check_noise(given: Any, name: str = "noise_multiplier") -> float:
    """A finite number >= 0."""
    value = real(name, given)
    if not 0 <= value < math.inf:
        raise ValueError(f"{name} must be finite and at least 0, got {given!r}")
    return value


def check_rate(given: Any, name: str = "sample_rate") -> float:
    """A probability."""
    value = real(name, given)
    if not 0 <= value <= 1:
        raise ValueError(f"{name} must be between 0 and 1, got {given!r}")
    return value


def check_steps(given: Any, name: str = "steps") -> int:
    """A whole number >= 0; 1e6 counts as one."""
    value = real(name, given)
    if not 0 <= value <= 2**52 or value != math.floor(value):
        raise ValueError(f"{name} must be a whole number between 0 and 2^52, got {given!r}")
    return int(value)


def check_delta(given: Any, name: str = "delta") -> float:
    """A number in (0, 1), at least 1e-300."""
    value = real(name, given)
    if value == 0:
        raise ValueError(
            f"{name} must be above 0, got {given!r}: the loss is unbounded, so epsilon is infinite "
            "at 0; pass the failure probability you accept, below 1 / (number of records)"
        )
    if not 0 < value < 1:
        raise ValueError(f"{name} must be strictly between 0 and 1, got {given!r}")
    if value < SMALLEST_DELTA:
        raise ValueError(f"{name} must be at least {SMALLEST_DELTA}, got {given!r}")
    return value


def check_epsilon(given: Any, name: str = "eps") -> float:
    """A finite number >= 0."""
    value = real(name, given)
    if not 0 <= value < math.inf:
        raise ValueError(f"{name} must be finite and at least 0, got {given!r}")
    return value


def per_step(name: str, given: Any, steps: int) -> Float[Array, " steps"]:
    """One finite number per step."""
    values: Array = np.asarray(given, dtype=float)
    if values.shape != (steps,):
        raise ValueError(
            f"{name} must be one number, or one per step: {steps} of them, got {values.size}"
        )
    wrong = ~np.isfinite(values)
    if wrong.any():
        at = int(np.argmax(wrong))
        raise ValueError(f"{name} must be finite, got {values[at]} at step {at}")
    return values
