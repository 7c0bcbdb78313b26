"""Columns of a record at the seeds and steps of another."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from surefoot.record import Record

PAPER = "arXiv 2410.08292"
HERE = "derived in surefoot, for the setting of arXiv 2410.08292"
SCORES = 5.0
"""Standard errors by which an estimate may be off."""
Curve = Float[np.ndarray, "seeds steps"]


def seeds_of(record: Record, quantity: str) -> list[int]:
    return [int(s) for s in record.curves(quantity).seeds]


def column_at(record: Record, quantity: str, steps: np.ndarray, seeds: list[int]) -> Curve:
    """Another column at the steps of the judged one; NaN where a seed has no value there."""
    found = np.full((len(seeds), len(steps)), np.nan)
    if quantity not in record:
        return found
    for i, seed in enumerate(seeds):
        own = record.of_seed(seed)
        if quantity not in own:
            continue
        curves = own.curves(quantity)
        known = dict(zip(curves.steps.tolist(), curves.values[0].tolist(), strict=True))
        found[i] = [known.get(int(s), np.nan) for s in steps]
    return found
