"""Run the seeds of a study in parallel and leave a run folder."""

from __future__ import annotations

import dataclasses
import os
import platform
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from surefoot._numerics.arguments import checked
from surefoot._run.backends import (
    CLUSTERS,
    Work,
    check_address,
    check_backend,
    fresh_workers,
    results,
)
from surefoot._run.conclude import conclude
from surefoot._run.execution import Execution
from surefoot._run.files import sha256_of, write_json
from surefoot._run.folder import RunFolder
from surefoot._run.in_use import alone_in
from surefoot._run.manifest import write_manifest
from surefoot._run.plan import start
from surefoot._run.seed import SeedResult
from surefoot.certificate import Certificate
from surefoot.guarantee import Verdict
from surefoot.study import Study, StudyConfig, load_study, study_names


def execute(
    study: Study,
    config: StudyConfig,
    folder: RunFolder,
    execution: Execution,
    progress: Callable[[SeedResult], None] = lambda result: None,
) -> list[Certificate]:
    """Run the seeds that are missing in a run folder, then judge and store what the record says.

    With `until_decided` that is repeated with twice the seeds for the parts that a claim on a mean left open.
    An interrupt leaves a valid folder with the seeds that were done, and is raised again.

    Raises
    ------
    SurefootError
        Another process runs seeds into the folder.
    """
    with alone_in(folder.path, _holder(folder)):
        found = _once(study, config, folder, execution, progress)
        while execution.until_decided and _grow(study, folder, found, execution.most_seeds):
            found = _once(study, config, folder, execution, progress)
    return found


def _holder(folder: RunFolder) -> str:
    status = folder.status
    if "pid" not in status:
        return "another process"
    return f"process {status['pid']} on {status.get('host', 'this machine')}"


def _grow(study: Study, folder: RunFolder, found: list[Certificate], most: int) -> bool:
    """Plan more seeds for the parts that they may decide; False: there are none."""
    config, grown = folder.config, False
    for part in study.parts:
        about = config["parts"].get(part.name)
        open_ = any(
            c.verdict is Verdict.UNDECIDED and c.more_seeds is not None
            for c in found
            if c.part == part.name
        )
        if about is None or part.deterministic or not open_:
            continue
        seeds: list[int] = about["seeds"]
        total = min(2 * len(seeds), most)
        if total == len(seeds):
            _say_full(folder, part.name, total)
        if total > len(seeds) and all(folder.is_done(part.name, s) for s in seeds):
            about["seeds"] = list(range(seeds[0], seeds[0] + total))
            about["look"] = about.get("look", 1) + 1
            grown = True
    if grown:
        write_json(folder.path / "config.json", config)
    return grown


def _say_full(folder: RunFolder, part: str, total: int) -> None:
    print(
        f"part {part} of {folder.study} is undecided at {total} seeds, the most allowed (max_seeds)",
        file=sys.stderr,
    )


def _once(
    study: Study,
    config: StudyConfig,
    folder: RunFolder,
    execution: Execution,
    progress: Callable[[SeedResult], None],
) -> list[Certificate]:
    started = time.monotonic()
    todo = [
        (part, seed)
        for part, about in folder.parts.items()
        for seed in about["seeds"]
        if not _whole(folder, part, seed)
    ]
    running = {"state": "running", "failed": [], "pid": os.getpid(), "host": platform.node()}
    write_json(folder.path / "status.json", running)
    failed: list[SeedResult] = []
    state = "interrupted"
    try:
        for result in _parallel(study, config, folder, execution, todo):
            progress(result)
            if result.error is not None:
                failed.append(result)
        state = "failed" if failed else "finished"
    finally:
        found = conclude(study, config, folder, execution.confidence)
        if found.problems and state == "finished":
            state = "failed"
        write_json(
            folder.path / "status.json",
            {
                "state": state,
                "seconds": time.monotonic() - started,
                "failed": [dataclasses.asdict(f) for f in failed],
                "problems": found.problems,
            },
        )
        write_manifest(folder.path, _read(config, folder))
    return found.certificates


def _whole(folder: RunFolder, part: str, seed: int) -> bool:
    """Whether a seed ended and left what it says; a damaged one is named and run again."""
    if not folder.is_done(part, seed):
        return False
    damage = folder.damage(part, seed)
    if damage is not None:
        print(f"seed {seed} of part {part} is run again: {damage}", file=sys.stderr)
    return damage is None


def _read(config: StudyConfig, folder: RunFolder) -> dict[str, str]:
    """Name -> digest of what the seeds opened of the catalogue, and of files that the configuration names."""
    found: dict[str, str] = {}
    for part, about in folder.parts.items():
        for seed in about["seeds"]:
            if folder.is_done(part, seed):
                found |= folder.sealed(part, seed)["read"]
    for f in dataclasses.fields(config):
        value = getattr(config, f.name)
        if isinstance(value, Path) and value.is_file():
            found[f"--{f.name.replace('_', '-')} {value}"] = sha256_of(value)
    return found


@checked
def run_study(
    study: Study | str,
    config: StudyConfig | None = None,
    *,
    backend: str = "loky",
    jobs: int = -1,
    out: str | Path = "runs",
    confidence: float = 0.99,
    until_decided: bool = False,
    max_seeds: int | None = None,
    address: str | None = None,
    progress: Callable[[SeedResult], None] = lambda result: None,
) -> RunFolder:
    """Run a study from Python, as `surefoot run` does: seeds, certificates and the report's page.

    Parameters
    ----------
    study
        A study, or the name that `surefoot run` takes.
    config
        Its configuration; by default that of its quick size.
    backend, jobs
        Where seeds run (loky, threading, ray or dask) and how many at once; -1: one a core.
    out
        The folder that holds all runs.
    confidence
        Of the verdicts on expectations.
    until_decided, max_seeds
        Double the seeds of a part for as long as a claim on its mean is UNDECIDED, up to so many.
    address
        Of a Ray or Dask cluster that shares this file system; by default one is started on this machine.
    progress
        Called with the result of each seed as it ends.

    Returns
    -------
    The run folder: `certificates()` and `record(part)` read it, `status` says what crashed.

    Raises
    ------
    UnknownNameError
        There is no such study, part or backend.
    MissingExtraError
        A part that was asked for, or the backend, needs an extra that is not installed.
    """
    from surefoot.report import write_run_page, write_site

    study = load_study(study) if isinstance(study, str) else study
    config = study.config() if config is None else config
    execution = Execution(backend, jobs, Path(out), confidence, until_decided, max_seeds, address)
    check_backend(backend)
    check_address(address)
    folder = start(study, config, execution)
    execute(study, config, folder, execution, progress)
    write_run_page(folder)
    write_site(folder.path.parent.parent)
    return folder


def _parallel(
    study: Study,
    config: StudyConfig,
    folder: RunFolder,
    execution: Execution,
    todo: list[tuple[str, int]],
) -> Iterable[SeedResult]:
    check_backend(execution.backend)
    local = execution.backend not in CLUSTERS
    jobs = (os.cpu_count() or 1) if execution.jobs == -1 and local else execution.jobs
    # One that was made here and now has no name by which another process could find it: it travels itself.
    found = study.module is not None or study.name in study_names()
    if execution.backend == "loky" and (study.module is not None or not found):
        fresh_workers()
    # A worker may stand elsewhere.
    place = RunFolder(folder.path.absolute())
    work = Work(study.reference if found else study, config, place, os.getpid(), todo)
    yield from results(execution.backend, work, jobs, execution.address)
