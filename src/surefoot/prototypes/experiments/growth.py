"""More clients: time and memory of the server, each count in a process of its own."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch

from surefoot._numerics.seeds import generator_for
from surefoot._problems.arms import last
from surefoot.prototypes.config import PrototypesConfig
from surefoot.prototypes.experiments.figures import lines_figure
from surefoot.prototypes.head import ZeroShotHead
from surefoot.prototypes.prototype_set import PrototypeSet
from surefoot.prototypes.server_training import train_global_adapter
from surefoot.record import Record

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

CLIENTS = {"quick": (10, 100), "standard": (10, 100, 1000), "paper": (10, 100, 1000)}
D, CLASSES, ROWS = 384, 15, 58
"""Of the uploads cluster_var .1 of the WordNet views: as many rows a client, of as many classes."""


def measure(clients: int, seed: int) -> None:
    """Print what one epoch on so many uploads takes: rows, seconds, peak bytes above those of the imports."""
    torch.set_num_threads(1)
    head = ZeroShotHead(torch.randn(CLASSES, D, generator=generator_for("growth", seed, "head")))
    # Warm: the first steps pay for what torch loads.
    train_global_adapter([_upload(0, seed)], head, steps=5)
    base = _peak()
    sets = [_upload(i, seed) for i in range(clients)]
    began = time.perf_counter()
    _, report = train_global_adapter(
        sets, head, epochs=1, batch_size=10, early_stop=False, seed=seed
    )
    seconds = time.perf_counter() - began
    found = {"rows": report.rows, "seconds": seconds, "bytes": _peak() - base,
             "upload": sum(s.nbytes for s in sets)}  # fmt: skip
    print(json.dumps(found))


def _peak() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def _upload(client: int, seed: int) -> PrototypeSet:
    z = torch.randn(ROWS, D, generator=generator_for("growth", seed, client))
    y = torch.arange(ROWS) % CLASSES
    counts = dict(Counter(y.tolist()))
    unit = torch.nn.functional.normalize(z, dim=1)
    return PrototypeSet(unit, y, torch.ones(ROWS), "cluster", 0.1, counts, "growth")


def run(config: PrototypesConfig, seed: int, record: Record) -> None:
    """Every count in a new interpreter, so that one's memory is not another's."""
    for clients in CLIENTS[config.size]:
        code = f"from surefoot.prototypes.experiments.growth import measure; measure({clients}, {seed})"
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise RuntimeError(f"{clients} clients: {done.stderr.strip()[-500:]}")
        found = json.loads(done.stdout.splitlines()[-1])
        record.append(seed, 0, **{f"{clients}: {name}": value for name, value in found.items()})


def tables(config: PrototypesConfig, record: Record) -> dict[str, pd.DataFrame]:
    """Time and memory by clients, and the exponents of a straight line through the logarithms."""
    counts = CLIENTS[config.size]
    rows = [
        {"clients": n, "MB up": last(record, f"{n}: upload") / 1e6,
         "features trained on": int(last(record, f"{n}: rows")),
         "seconds of one epoch": last(record, f"{n}: seconds"),
         "peak memory above the start, MB": last(record, f"{n}: bytes") / 1e6}
        for n in counts
    ]  # fmt: skip
    uploads = [last(record, f"{n}: upload") for n in counts]
    fits = [
        {"what": what, "exponent in the uploaded bytes": exponent(
            uploads, [last(record, f"{n}: {name}") for n in counts])}
        for what, name in (("seconds", "seconds"), ("peak memory", "bytes"))
    ]  # fmt: skip
    return {f"{ROWS} rows of {D} numbers a client": pd.DataFrame(rows),
            "1 is linear": pd.DataFrame(fits)}  # fmt: skip


def exponent(x: list[float], y: list[float]) -> float:
    """The slope of log y over log x."""
    return float(np.polyfit(np.log(x), np.log(np.maximum(y, 1e-9)), 1)[0])


def figures(config: PrototypesConfig, record: Record) -> dict[str, Figure]:
    """Seconds over clients."""
    counts = CLIENTS[config.size]
    seconds = [last(record, f"{n}: seconds") for n in counts]
    return {"time of the server": lines_figure(
        counts, {"one epoch": seconds}, "clients", "seconds")}  # fmt: skip
