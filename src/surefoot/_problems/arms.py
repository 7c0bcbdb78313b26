"""Several runs in one record, each under the name of its arm."""

from __future__ import annotations

from surefoot.record import Record


def keep(record: Record, seed: int, arm: str, run: Record) -> None:
    """What one run recorded, into the record of the part, under the name of its arm."""
    for quantity in run.quantities:
        curves = run.curves(quantity)
        record.extend(seed, f"{arm}: {quantity}", curves.values[0], curves.steps)
    for name, known in run.facts.items():
        for value in known.all:
            record.note(seed, arm, **{name: value})


def of_arm(record: Record, arm: str) -> Record:
    """The record of one arm, as its runs wrote it."""
    found, start = Record(), f"{arm}: "
    for quantity in record.quantities:
        if quantity.startswith(start):
            curves = record.curves(quantity)
            for seed, values in zip(curves.seeds, curves.values, strict=True):
                found.extend(int(seed), quantity.removeprefix(start), values, curves.steps)
    for key, known in record.facts.items():
        if key.startswith(f"{arm}."):
            name = key.removeprefix(f"{arm}.")
            for seed, values in known.values.items():
                for value in values:
                    found.note(seed, **{name: value})
    return found


def last(record: Record, quantity: str) -> float:
    """The mean over seeds of the last value."""
    return float(record.constant(quantity).mean())


def least(**values: float) -> str:
    """Which of several errors is the smallest."""
    return min(values, key=values.__getitem__).replace("_", " ")
