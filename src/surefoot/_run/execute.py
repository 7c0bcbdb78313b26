"""Run the seeds of a study in parallel and leave a run folder."""

from __future__ import annotations

import dataclasses
import os
import shlex
import sys
import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from surefoot._numerics.checks import check_number
from surefoot._run.backends import check_backend, fresh_workers, joblib_backend
from surefoot._run.conclude import conclude
from surefoot._run.environment import environment
from surefoot._run.files import write_json, write_text
from surefoot._run.folder import FORMAT, RunFolder
from surefoot.certificate import Certificate
from surefoot.guarantee import Verdict
from surefoot.record import Record
from surefoot.study import Part, Study, StudyConfig, load_study, study_names


@dataclass(frozen=True)
class Execution:
    """How a study is executed; nothing here may change a result."""

    backend: str = "loky"
    """joblib's backend: loky, threading, ray or dask."""
    jobs: int = -1
    """How many seeds run at once; -1: one a core."""
    out: Path = Path("runs")
    """The folder that holds all runs."""
    confidence: float = 0.99
    """Confidence of the verdicts on expectations."""
    until_decided: bool = False
    """Double the seeds of a part for as long as a claim on its mean is UNDECIDED."""
    max_seeds: int | None = None
    """The most seeds that a part gets that way; 300 where nothing is said."""

    def __post_init__(self) -> None:
        check_number("confidence", self.confidence, least=0.5, below=1)
        if self.max_seeds is not None:
            check_number("max_seeds", self.max_seeds, least=1, whole=True)
            if not self.until_decided:
                raise ValueError("max_seeds is for until_decided; for a fixed number give seeds")
        if self.jobs == 0 or self.jobs < -1:
            raise ValueError(f"jobs must be -1 or at least 1, got {self.jobs}")

    @property
    def most_seeds(self) -> int:
        """`max_seeds`, or its default."""
        return 300 if self.max_seeds is None else self.max_seeds


@dataclass(frozen=True)
class SeedResult:
    """How one seed of one part ended; `error` is the last line of its traceback."""

    part: str
    seed: int
    seconds: float
    error: str | None = None


def run_seed(
    study: Study | str, config: StudyConfig, part: str, seed: int, folder: Path
) -> SeedResult:
    """Run one seed in this process; an exception is written beside the record, not raised."""
    import torch

    torch.set_num_threads(1)
    folder.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    error = None
    try:
        study = load_study(study) if isinstance(study, str) else study
        run = next(p for p in study.parts if p.name == part).run
        # A resumed seed starts from nothing: half a seed is no measurement.
        for stale in [*folder.glob("*.parquet"), *folder.glob("error.txt")]:
            stale.unlink()
        with Record(folder) as record:
            run(config, seed, record)
        seconds = time.monotonic() - started
        write_json(folder / "done.json", {"seconds": seconds})
    except Exception as exception:
        error = f"{type(exception).__name__}: {exception}"
        write_text(folder / "error.txt", traceback.format_exc())
    return SeedResult(part, seed, time.monotonic() - started, error)


def start(study: Study, config: StudyConfig, execution: Execution) -> RunFolder:
    """Make the run folder and write down what is about to happen."""
    # First, as it refuses: what cannot run leaves no folder behind.
    parts = study.runnable(config)
    planned = {p.name: _about(p, config, execution) for p in parts}
    folder = RunFolder.create(execution.out, study.name)
    skipped = {p.name: sorted(p.missing) for p in study.chosen(config) if p not in parts}
    write_json(
        folder.path / "config.json",
        {
            "format": FORMAT,
            "study": study.name,
            "title": study.title,
            "paper": study.paper,
            "config": dataclasses.asdict(config),
            "confidence": execution.confidence,
            "parts": planned,
            "skipped": skipped,
            "command": reproduce(study, config, execution),
        },
    )
    write_json(folder.path / "environment.json", environment())
    return folder


def _about(part: Part, config: StudyConfig, execution: Execution) -> dict[str, Any]:
    about: dict[str, Any] = {"title": part.title, "seeds": part.seeds_for(config)}
    if execution.until_decided and len(about["seeds"]) > execution.most_seeds:
        raise ValueError(
            f"max_seeds must be at least the {len(about['seeds'])} seeds that part {part.name} starts with, "
            f"got {execution.most_seeds}"
        )
    # Looked at more than once, a limit for a fixed number of seeds is too short.
    return about | ({"look": 1} if execution.until_decided and not part.deterministic else {})


def reproduce(study: Study, config: StudyConfig, execution: Execution | None = None) -> str:
    """The command line that repeats a run."""
    words = ["surefoot", "run", study.reference]
    for f in dataclasses.fields(config):
        value = getattr(config, f.name)
        if value == (f.default if f.default is not dataclasses.MISSING else None):
            continue
        values = value if isinstance(value, (tuple, list)) else [value]
        words += ["--" + f.name.replace("_", "-"), *map(str, values)]
    if execution is not None and execution.until_decided:
        words += ["--until-decided", "--max-seeds", str(execution.most_seeds)]
    return shlex.join(words)


def config_of(study: Study, folder: RunFolder) -> StudyConfig:
    """The configuration that a run folder was made with."""
    stored: dict[str, Any] = folder.config["config"]
    names = {f.name for f in dataclasses.fields(study.config)}
    values: dict[str, Any] = {
        k: tuple(v) if isinstance(v, list) else v for k, v in stored.items() if k in names
    }
    return study.config(**values)


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
    """
    found = _once(study, config, folder, execution, progress)
    while execution.until_decided and _grow(study, folder, found, execution.most_seeds):
        found = _once(study, config, folder, execution, progress)
    return found


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
        if not folder.is_done(part, seed)
    ]
    write_json(folder.path / "status.json", {"state": "running", "failed": []})
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
    return found.certificates


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
        joblib's backend and how many seeds run at once; -1: one a core.
    out
        The folder that holds all runs.
    confidence
        Of the verdicts on expectations.
    until_decided, max_seeds
        Double the seeds of a part for as long as a claim on its mean is UNDECIDED, up to so many.
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
        A part that was asked for needs an extra that is not installed.
    """
    from surefoot.report import write_run_page, write_site

    study = load_study(study) if isinstance(study, str) else study
    config = study.config() if config is None else config
    execution = Execution(backend, jobs, Path(out), confidence, until_decided, max_seeds)
    check_backend(backend)
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
    import joblib

    check_backend(execution.backend)
    jobs = execution.jobs if execution.jobs != -1 else (os.cpu_count() or 1)
    # One that was made here and now has no name by which another process could find it: it travels itself.
    found = study.module is not None or study.name in study_names()
    if execution.backend == "loky" and (study.module is not None or not found):
        fresh_workers()
    calls = [
        joblib.delayed(run_seed)(
            study.reference if found else study,
            config,
            part,
            seed,
            # A worker may stand elsewhere.
            folder.seed_folder(part, seed).absolute(),
        )
        for part, seed in todo
    ]
    # joblib's Ray backend hands results back only when all are there.
    results = "list" if execution.backend == "ray" else "generator_unordered"
    with joblib_backend(execution.backend, jobs):
        yield from joblib.Parallel(n_jobs=jobs, return_as=results, batch_size=1)(calls)
