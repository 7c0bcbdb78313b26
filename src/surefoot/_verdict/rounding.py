"""What rounding may do to a comparison, by the precision in which its numbers were computed."""

from __future__ import annotations

import numpy as np

from surefoot.record import Record

EPS = {"float64": 2.0**-52, "float32": 2.0**-23}
# Quantities of models in 16 bits are computed in float32 (the optimizers and measures here see to it).
COARSER = {"float16": "float32", "bfloat16": "float32"}
# A sum over many terms and a handful of operations, each half an eps.
ROUNDINGS = 16


def eps_of(record: Record, quantity: str, of: str = "") -> float:
    """Machine epsilon of what a quantity was computed in: the coarsest that the record names.

    The fact "dtype: QUANTITY" if it was noted, else "dtype", else float64: nothing favourable is assumed
    of what was not recorded.
    """
    own = record.fact(f"dtype: {quantity}", of).all
    names = [str(n).removeprefix("torch.") for n in own or record.fact("dtype", of).all]
    found = [EPS[COARSER.get(n, n)] for n in names if COARSER.get(n, n) in EPS]
    return max(found, default=EPS["float64"])


def forgiven(
    eps: float, measured: np.ndarray, bound: np.ndarray, size: np.ndarray | float
) -> np.ndarray:
    """A few eps of the larger of both sides and of what they were computed from; 0 at infinity."""
    with np.errstate(invalid="ignore", over="ignore"):
        largest = np.maximum(np.maximum(np.abs(measured), np.abs(bound)), size)
    return np.where(np.isfinite(largest), ROUNDINGS * eps * largest, 0.0)
