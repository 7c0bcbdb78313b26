"""The settings of a run as the bounds need them: numbers read off its record, never told."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from surefoot.record import Record

Pick = Literal["smallest", "largest"]
SINGULAR = 1e-9


def column(name: str, of: str) -> str:
    """The quantity's name where a record holds several runs."""
    return f"{of}: {name}" if of else name


def by_seed(record: Record, name: str, of: str, pick: Pick) -> dict[int, float]:
    """The smallest or largest value of a quantity, or of a fact of that name, of each seed that has one.

    Parameters
    ----------
    record
        The run.
    name, of
        The quantity or fact, and which of several runs it is about.
    pick
        Over the steps, or over the values that were noted.
    """
    take = min if pick == "smallest" else max
    quantity = column(name, of)
    if quantity in record:
        curves = record.curves(quantity)
        if not curves.complete or not len(curves.steps):
            # Some seed has steps that others lack, and its extreme may lie there.
            found: dict[int, float] = {}
            column_of = record.frame(quantity)[quantity].dropna()
            where = column_of.index.get_level_values("seed").tolist()
            for seed, value in zip(where, column_of.tolist(), strict=True):
                found[seed] = take(found.get(seed, value), value)
            return found
        rows = zip(curves.seeds, curves.values, strict=True)
        return {int(s): float(take(row)) for s, row in rows}
    return {s: take(float(v) for v in values) for s, values in record.fact(name, of).values.items()}


@dataclass(frozen=True)
class Settings:
    """One run's.

    Attributes
    ----------
    gamma, gamma_max
        The smallest step size, which a rate counts with, and the largest one, which it must allow.
    lam, lam_max
        Smallest and largest eigenvalue of E[H].
    sketch_low, sketch_high
        Of S^T S over all blocks; 1 where sketches act as projections.
    steps
        Steps of a block, or local steps of a round.
    sketch_mean, sketch_sup
        How far the law of the sketches stretches in the mean and at most; None for a law that nobody knows.
    """

    gamma: float
    gamma_max: float
    lam: float
    lam_max: float
    sketch_low: float = 1.0
    sketch_high: float = 1.0
    steps: int = 1
    sketch_mean: float | None = None
    sketch_sup: float | None = None

    def stretch(self, single: bool) -> float | None:
        """By what gamma counts in a step size's condition, by the law of the sketches.

        One step a block needs its mean alone; further steps need that no draw stretches more. None for a
        law that nobody knows.
        """
        return self.sketch_mean if single and self.steps <= 1 else self.sketch_sup

    def noise_share(self, single: bool) -> float:
        """lam_max as noise meets it: E[S^2] <= mean lam_max for one step a block, sup^2 lam_max for more."""
        known = self.stretch(single)
        most = max(1.0, self.sketch_high if known is None or math.isinf(known) else known)
        return self.lam_max * (most if single else most**2)


def settings_of(record: Record, of: str, seeds: Sequence[int]) -> list[Settings]:
    """The settings of each seed.

    Parameters
    ----------
    record
        The run.
    of
        Which of several.
    seeds
        Those that the bound is asked for.

    Raises
    ------
    ValueError
        A seed did not record one of them: without it nothing is promised.
    """
    low, high = (
        by_seed(record, "gamma", of, "smallest"),
        by_seed(record, "gamma_max", of, "largest"),
    )
    high = high or by_seed(record, "gamma", of, "largest")
    found = {
        "gamma": low, "gamma_max": high,
        "lam": by_seed(record, "lam", of, "smallest"),
        "lam_max": by_seed(record, "lam_max", of, "largest"),
        "sketch_low": by_seed(record, "sketch_low", of, "smallest"),
        "sketch_high": by_seed(record, "sketch_high", of, "largest"),
        "steps": by_seed(record, "steps", of, "largest"),
    }  # fmt: skip
    mean = by_seed(record, "sketch_mean", of, "largest")
    sup = by_seed(record, "sketch_sup", of, "largest")
    for name, values in found.items():
        missing = [s for s in seeds if s not in values]
        if missing:
            raise ValueError(
                f"the record does not say {column(name, of)} of seed {', '.join(map(str, missing))}, "
                "and nothing is promised without it; a chain writes it into its record as it runs"
            )
    return [
        Settings(
            found["gamma"][s], found["gamma_max"][s], max(found["lam"][s], SINGULAR),
            max(found["lam_max"][s], SINGULAR),
            found["sketch_low"][s], found["sketch_high"][s], int(found["steps"][s]), mean.get(s), sup.get(s),
        )
        for s in seeds
    ]  # fmt: skip


def extreme(record: Record, name: str, of: str, pick: Pick) -> float | None:
    """Over all seeds; None where one of them says nothing."""
    found = by_seed(record, name, of, pick)
    if not found or any(s not in found for s in record.seeds):
        return None
    values = np.array(list(found.values()))
    return float(values.min() if pick == "smallest" else values.max())
