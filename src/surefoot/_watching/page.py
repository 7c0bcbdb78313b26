"""A watched training as a run folder, with its page among those of the studies."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from surefoot._run.environment import environment
from surefoot._run.files import write_json
from surefoot._run.folder import FORMAT, RunFolder
from surefoot._run.manifest import write_manifest
from surefoot._watching.theorems import Offer
from surefoot.certificate import Certificate
from surefoot.record import Record

STUDY, PART = "watch", "training"
TITLE = "A watched training"
MOST = 2000
"""Points of a picture."""


def write_watched(
    root: Path,
    record: Record,
    certificates: Sequence[Certificate],
    offered: Sequence[Offer],
    settings: Mapping[str, Any],
    confidence: float,
    seconds: float,
) -> Path:
    """Write a run folder below `root`, its page, and the index of all; return the page.

    Parameters
    ----------
    root
        The folder that holds all runs.
    record
        Of the training.
    certificates, offered
        What it was held against, and what might have been.
    settings
        What was watched, in words and numbers.
    confidence
        Of the certificates.
    seconds
        How long it took.
    """
    from surefoot.report import write_run_page, write_site

    plan = {
        "format": FORMAT, "study": STUDY, "title": TITLE, "paper": "a training of one's own",
        "config": dict(settings), "confidence": confidence, "skipped": {},
        "parts": {PART: {"title": TITLE, "seeds": record.seeds}}, "command": "surefoot.watch",
    }  # fmt: skip
    folder = RunFolder.create(root, STUDY, {"config.json": plan, "environment.json": environment()})
    for seed in record.seeds:
        place = folder.seed_folder(PART, seed)
        place.mkdir(parents=True)
        record.of_seed(seed).write(place / "000000.parquet")
        folder.seal(PART, seed, seconds, {})
    folder.merge()
    folder.write_certificates([dataclasses.replace(c, part=PART) for c in certificates])
    table = [
        {"guarantee": o.name, "offered": o.guarantee is not None, "why not": o.why_not}
        for o in offered
    ]
    folder.write_table(PART, "What was offered", pd.DataFrame(table))
    for name in record.quantities:
        folder.write_figure(PART, name, _figure(record, name))
    write_json(folder.path / "status.json", {"state": "finished", "seconds": seconds, "failed": []})
    write_manifest(folder.path, {})
    page = write_run_page(folder)
    write_site(root)
    return page


def _figure(record: Record, name: str) -> dict[str, Any]:
    curve = record.curves(name)
    every = max(1, -(-len(curve.steps) // MOST))
    lines = [
        {"type": "scatter", "name": f"seed {seed}", "x": curve.steps[::every].tolist(),
         "y": values[::every].tolist()}
        for seed, values in zip(curve.seeds.tolist(), curve.values, strict=True)
    ]  # fmt: skip
    positive = bool((curve.values > 0).all())
    axes = {"xaxis": {"title": {"text": "step"}}, "yaxis": {"title": {"text": name}}}
    if positive and curve.values.size and curve.values.max() > 20 * curve.values.min():
        axes["yaxis"]["type"] = "log"  # type: ignore[assignment]
    return {"data": lines, "layout": axes}
