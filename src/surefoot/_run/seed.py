"""One seed of one part, in whatever process it runs."""

from __future__ import annotations

import contextlib
import os
import platform
import time
import traceback
from dataclasses import dataclass
from pathlib import Path

from surefoot._numerics.seeds import seed_for
from surefoot._run.files import read_json, write_json, write_text
from surefoot._run.folder import RunFolder
from surefoot._run.in_use import WORKER, end_with
from surefoot.errors import FileFormatError
from surefoot.record import Record
from surefoot.study import Study, StudyConfig, load_study


@dataclass(frozen=True)
class SeedResult:
    """How one seed of one part ended; `error` is the last line of its traceback."""

    part: str
    seed: int
    seconds: float
    error: str | None = None


def run_seed(
    study: Study | str, config: StudyConfig, part: str, seed: int, run: RunFolder, owner: int
) -> SeedResult:
    """Run one seed in this process; an exception is written beside the record, not raised.

    Parameters
    ----------
    study : Study or str
        The study, or what `load_study` takes.
    config : StudyConfig
        Its configuration.
    part, seed : str and int
        Which seed of which part.
    run : RunFolder
        Where it writes.
    owner : int
        The process that runs the study, without which this one ends.
    """
    import torch

    from surefoot.data.reads import read_so_far

    end_with(owner)
    torch.set_num_threads(1)
    # Layers and samplers of torch draw from here where nobody gives them a generator.
    # Not the seed itself: generators that a study makes of it would draw the same numbers.
    torch.manual_seed(seed_for("torch", part, seed))
    folder = run.seed_folder(part, seed)
    started = time.monotonic()
    error = None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        study = load_study(study) if isinstance(study, str) else study
        measure = next(p for p in study.parts if p.name == part).run
        # A resumed seed starts from nothing: half a seed is no measurement.
        write_json(folder / WORKER, {"pid": os.getpid(), "host": platform.node()})
        for stale in [*folder.glob("*.parquet"), *folder.glob("*.txt"), *folder.glob("done.json")]:
            stale.unlink()
        with Record(folder) as record:
            measure(config, seed, record)
        run.seal(part, seed, time.monotonic() - started, read_so_far())
    except Exception as exception:
        error = f"{type(exception).__name__}: {exception}"
        # On a full disk the error itself cannot be written; it is named all the same.
        with contextlib.suppress(OSError):
            write_text(folder / "error.txt", traceback.format_exc())
    with contextlib.suppress(OSError):
        (folder / WORKER).unlink(missing_ok=True)
    return SeedResult(part, seed, time.monotonic() - started, error)


def worker_of(folder: Path) -> str | None:
    """The process that began a seed and did not live to end it, in words; None: none did."""
    try:
        found = read_json(folder / WORKER)
        (folder / WORKER).unlink()
        return f"worker {found['pid']} on {found['host']}"
    except (OSError, FileFormatError, KeyError, TypeError):
        return None
