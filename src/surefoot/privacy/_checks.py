"""Argument checks: a ValueError that names the argument, what is allowed, and what was given."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from surefoot._numerics.checks import check_number, check_real
from surefoot._numerics.refusing import refuse
from surefoot.errors import ArgumentError

Array = np.ndarray
Number = float | Sequence[float] | Float[Array, " steps"]
SMALLEST_DELTA = 1e-300


def real(name: str, given: Any) -> float:
    """A number that is not NaN."""
    return check_number(name, given, finite=False)


def check_noise(given: Any, name: str = "noise_multiplier") -> float:
    """A finite number >= 0."""
    return check_number(name, given, least=0)


def check_rate(given: Any, name: str = "sample_rate") -> float:
    """A probability."""
    return check_number(name, given, least=0, most=1)


def check_steps(given: Any, name: str = "steps") -> int:
    """A whole number >= 0; 1e6 counts as one."""
    return check_number(name, given, least=0, most=2**52, whole=True)


def check_delta(given: Any, name: str = "delta") -> float:
    """A number in (0, 1), at least 1e-300."""
    value = real(name, given)
    if value == 0:
        why = (
            f"must be above 0, got {given!r}: the loss is unbounded, so epsilon is infinite "
            "at 0; pass the failure probability you accept, below 1 / (number of records)"
        )
        refuse(ArgumentError(name, why))
        return value
    check_number(name, given, above=0, below=1)
    if 0 < value < SMALLEST_DELTA:
        refuse(ArgumentError(name, f"must be at least {SMALLEST_DELTA}, got {given!r}"))
    return value


def check_epsilon(given: Any, name: str = "eps") -> float:
    """A finite number >= 0."""
    return check_number(name, given, least=0)


def per_step(name: str, given: Any, steps: int) -> Float[Array, " steps"]:
    """One finite number per step."""
    check_real(name, given)
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


def check_rates(given: Any, steps: int) -> None:
    """A learning rate for each step, none below 0."""
    rates = per_step("lr_history", given, steps)
    if (rates < 0).any():
        at = int(np.argmax(rates < 0))
        raise ValueError(f"lr_history must be at least 0, got {rates[at]} at step {at}")
