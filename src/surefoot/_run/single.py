"""A run of something that is no study: one part, one seed, filed and shown as a study's run is."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from surefoot._run.environment import environment
from surefoot._run.files import write_json
from surefoot._run.folder import FORMAT, RunFolder
from surefoot._run.manifest import write_manifest
from surefoot.certificate import Certificate
from surefoot.record import Record

MOST = 2000
"""Points of a picture."""


def write_single(
    root: Path,
    name: str,
    *,
    title: str,
    part: str,
    about: str,
    record: Record,
    certificates: Sequence[Certificate],
    tables: Mapping[str, pd.DataFrame],
    figures: Mapping[str, Mapping[str, Any]],
    config: Mapping[str, Any],
    command: str,
    seconds: float,
    paper: str = "",
    confidence: float = 0.99,
    read: Mapping[str, str] | None = None,
) -> RunFolder:
    """File a finished run below `root/name`.

    Parameters
    ----------
    root
        The folder that holds runs.
    name, title, paper
        As of a study.
    part, about
        The one part, and its title.
    record
        What was measured, under one seed.
    certificates, tables, figures
        What the record says.
    config, command
        What ran, and how it is repeated.
    seconds
        How long it took.
    confidence
        Of the certificates.
    read
        By name, the SHA-256 of what was read.
    """
    seeds = record.seeds or [0]
    plan = {
        "format": FORMAT, "study": name, "title": title, "paper": paper, "config": dict(config),
        "confidence": confidence, "parts": {part: {"title": about, "seeds": seeds}}, "skipped": {},
        "command": command, "single": True,
    }  # fmt: skip
    folder = RunFolder.create(root, name, {"config.json": plan, "environment.json": environment()})
    for seed in seeds:
        inside = folder.seed_folder(part, seed)
        inside.mkdir(parents=True)
        record.of_seed(seed).write(inside / "000000.parquet")
        folder.seal(part, seed, seconds, dict(read or {}))
    folder.merge()
    folder.write_certificates([dataclasses.replace(c, part=part) for c in certificates])
    for table, found in tables.items():
        folder.write_table(part, table, found)
    for figure, drawn in figures.items():
        folder.write_figure(part, figure, drawn)
    write_json(
        folder.path / "status.json",
        {"state": "finished", "seconds": seconds, "failed": [], "problems": {}},
    )
    write_manifest(folder.path, dict(read or {}))
    return folder


def curve_figure(record: Record, name: str) -> dict[str, Any]:
    """A quantity over the steps, a line a seed, as plotly has it.

    Parameters
    ----------
    record
        With one seed or several, of whatever lengths.
    name
        The quantity, which is the axis's title.
    """
    lines = []
    for seed in record.seeds:
        own = record.of_seed(seed)
        if name not in own:
            continue
        curve = own.curves(name)
        every = max(1, -(-len(curve.steps) // MOST))
        lines.append(
            {"type": "scatter", "name": f"seed {seed}", "x": curve.steps[::every].tolist(),
             "y": curve.values[0, ::every].tolist()}
        )  # fmt: skip
    axes: dict[str, Any] = {
        "xaxis": {"title": {"text": "step"}},
        "yaxis": {"title": {"text": name}},
    }
    values = np.concatenate([line["y"] for line in lines]) if lines else np.zeros(0)
    if values.size and values.min() > 0 and values.max() > 20 * values.min():
        axes["yaxis"]["type"] = "log"
    return {"data": lines, "layout": axes}
