"""One record to one tracker: a run of the tracker for each seed."""

from __future__ import annotations

import contextlib
import importlib
import json
import re
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from surefoot._run.environment import version_of
from surefoot.errors import MissingExtraError, UnknownNameError

SINKS = {
    "mlflow": ("mlflow", "mlflow-skinny"),
    "tensorboard": ("tensorboard",),
    "trackio": ("trackio",),
}
"""Tracker -> the packages any of which brings it."""
ALLOWED = re.compile(r"[^\w .:/-]+", re.ASCII)


@dataclass(frozen=True)
class Sent:
    """What one run of a tracker is given.

    `rows` has the quantities of each step in order, under names that every tracker takes; `names` says which
    quantity a changed name is of.
    """

    project: str
    run: str
    rows: tuple[tuple[int, Mapping[str, float]], ...]
    facts: Mapping[str, str]
    names: Mapping[str, str]
    certificates: str
    summary: str


def check_sink(name: str) -> None:
    """Refuse a tracker that is not there before anything is run for it.

    Raises
    ------
    UnknownNameError
        There is none of that name.
    MissingExtraError
        Its package is not installed.
    """
    if name not in SINKS:
        raise UnknownNameError("tracker", name, SINKS)
    if all(version_of(package) is None for package in SINKS[name]):
        raise MissingExtraError(f"tracker {name!r}", SINKS[name][0], "sinks")


def send(
    sink: str,
    record: Any,
    place: str | Path | None,
    project: str,
    run: str,
    certificates: Iterable[Any],
    publish_private: bool = False,
) -> None:
    """Hand a record to a tracker; see `Record.to`."""
    check_sink(sink)
    write = importlib.import_module(f"surefoot._sinks.doors.{sink}").write
    made = [c.published(publish_private) for c in certificates]
    kept = () if publish_private else record.private_quantities
    # Some clients greet on the standard output, which may be somebody's JSON.
    with contextlib.redirect_stdout(sys.stderr):
        for seed in record.seeds:
            write(
                _sent(record, seed, project, run, made, kept), None if place is None else str(place)
            )


def _sent(
    record: Any, seed: int, project: str, run: str, made: list[Any], kept: Collection[str]
) -> Sent:
    names = dict(_named(q for q in record.quantities if q not in kept))
    rows: dict[int, dict[str, float]] = {}
    own = record.of_seed(seed)
    for quantity in (q for q in own.quantities if q not in kept):
        curve = own.curves(quantity)
        for step, value in zip(curve.steps.tolist(), curve.values[0].tolist(), strict=True):
            rows.setdefault(step, {})[names[quantity]] = value
    facts = {name: ", ".join(map(str, known.all)) for name, known in own.facts.items()}
    return Sent(
        project, f"{run} seed {seed}", tuple(sorted(rows.items())), {"seed": str(seed), **facts},
        {changed: name for name, changed in names.items() if changed != name},
        json.dumps([c.to_dict(publish_private=True) for c in made], indent=1, allow_nan=False),
        "\n\n".join(c.summary() for c in made),
    )  # fmt: skip


def _named(quantities: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Quantity -> a name of letters, digits, spaces and _ . : / -, no two the same."""
    taken: set[str] = set()
    for quantity in quantities:
        name = ALLOWED.sub("_", quantity).strip(" /.") or "quantity"
        unique, count = name, 2
        while unique.lower() in taken:
            unique, count = f"{name} {count}", count + 1
        taken.add(unique.lower())
        yield quantity, unique
