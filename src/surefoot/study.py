"""A study: a reproducible experiment in parts, whose seeds run in parallel and leave a run folder."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import importlib.util
import json
import os
import pkgutil
import shlex
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import surefoot
from surefoot._run.environment import check_ray, environment, version_of
from surefoot._run.folder import FORMAT, RunFolder, write_json
from surefoot.certificate import Certificate, certify
from surefoot.errors import SurefootError, UnknownNameError
from surefoot.guarantee import Guarantee, Verdict
from surefoot.record import Record

if TYPE_CHECKING:
    import pandas as pd
    from plotly.graph_objects import Figure

Size = Literal["quick", "standard", "paper"]
BACKENDS = ("loky", "threading", "ray", "dask")


@dataclass(frozen=True)
class StudyConfig:
    """What every study can be told; a study adds fields of its own, each of them a flag."""

    size: Size = "quick"
    """quick: seconds; standard: minutes; paper: the paper's own setting."""
    part: tuple[str, ...] = ()
    """The parts to run, all of them by default."""
    seed: int = 0
    """The first seed; a part with n seeds uses seed, seed + 1, ..., seed + n - 1."""
    seeds: int | None = None
    """How many seeds a random part runs; by default the part's own number for the size."""

    def __post_init__(self) -> None:
        if self.seeds is not None and self.seeds < 1:
            raise ValueError(f"seeds must be at least 1, got {self.seeds}")


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

    def __post_init__(self) -> None:
        if not 0.5 <= self.confidence < 1:
            raise ValueError(f"confidence must be in [0.5, 1), got {self.confidence}")
        if self.jobs == 0 or self.jobs < -1:
            raise ValueError(f"jobs must be -1 or at least 1, got {self.jobs}")


@dataclass(frozen=True)
class Part:
    """One experiment of a study.

    `run(config, seed, record)` fills the record of one seed. `guarantees(config)` says what is
    promised of it. `expects` announces verdicts by the guarantee's name where a study knows
    better than KEPT: the counterexamples do. `deterministic` parts run one seed. `sizes` are those
    at which the part runs unasked; named with --part it runs at any.
    """

    name: str
    title: str
    run: Callable[[Any, int, Record], None]
    guarantees: Callable[[Any], Iterable[Guarantee]] = lambda config: ()
    certificates: Callable[[Any, Record], Iterable[Certificate]] = lambda config, record: ()
    figures: Callable[[Any, Record], Mapping[str, Figure]] = lambda config, record: {}
    tables: Callable[[Any, Record], Mapping[str, pd.DataFrame]] = lambda config, record: {}
    expects: Mapping[str, Verdict] = field(default_factory=dict)
    sizes: tuple[Size, ...] = ("quick", "standard", "paper")
    seeds: Mapping[Size, int] = field(
        default_factory=lambda: {"quick": 5, "standard": 12, "paper": 30}
    )
    deterministic: bool = False

    def seeds_for(self, config: StudyConfig) -> list[int]:
        """The seeds that this part runs under a configuration."""
        count = 1 if self.deterministic else (config.seeds or self.seeds[config.size])
        return list(range(config.seed, config.seed + count))


@dataclass(frozen=True)
class Study:
    """A reproducible experiment: a configuration, and parts that turn it into certificates."""

    name: str
    title: str
    paper: str
    config: type[StudyConfig]
    parts: tuple[Part, ...]
    module: str | None = None

    @property
    def reference(self) -> str:
        """What `load_study` needs to find this study again in another process."""
        return self.module or self.name

    def chosen(self, config: StudyConfig) -> list[Part]:
        """The parts that a configuration asks for."""
        names = [p.name for p in self.parts]
        for name in config.part:
            if name not in names:
                raise UnknownNameError(f"part of study {self.name}", name, names)
        if config.part:
            return [p for p in self.parts if p.name in config.part]
        return [p for p in self.parts if config.size in p.sizes]


def study_names() -> list[str]:
    """The studies there are: the subpackages with a module `study`; imports none of them."""
    found = []
    for module in pkgutil.iter_modules(surefoot.__path__):
        folder = Path(surefoot.__path__[0]) / module.name
        if module.ispkg and (folder / "study.py").exists():
            found.append(module.name)
    return sorted(found)


def study_title(name: str) -> str:
    """The first line of a study's docstring, read without importing it."""
    source = (Path(surefoot.__path__[0]) / name / "study.py").read_text(encoding="utf-8")
    return (ast.get_docstring(ast.parse(source)) or name).splitlines()[0]


def load_study(name: str) -> Study:
    """Import a study by the name of its folder, or one of your own by the name of its module.

    A module of yours needs a `STUDY`, whose `module` is that name.
    """
    own = name not in study_names()
    if own and importlib.util.find_spec(name.split(".")[0]) is None:
        raise UnknownNameError("study", name, [*study_names(), "all"])
    module = name if own else f"surefoot.{name}.study"
    try:
        study = getattr(importlib.import_module(module), "STUDY", None)
    except ModuleNotFoundError as error:
        raise SurefootError(f"study {name!r} cannot be imported: {error}") from error
    if not isinstance(study, Study):
        raise SurefootError(f"module {module} has no STUDY of type surefoot.study.Study")
    return study


@dataclass(frozen=True)
class SeedResult:
    """How one seed of one part ended; `error` is the last line of its traceback."""

    part: str
    seed: int
    seconds: float
    error: str | None = None


def run_seed(name: str, config: StudyConfig, part: str, seed: int, folder: Path) -> SeedResult:
    """Run one seed in this process; an exception is written beside the record, not raised."""
    import torch

    torch.set_num_threads(1)
    folder.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    error = None
    try:
        run = next(p for p in load_study(name).parts if p.name == part).run
        # A resumed seed starts from nothing: half a seed is no measurement.
        for stale in [*folder.glob("*.parquet"), *folder.glob("error.txt")]:
            stale.unlink()
        with Record(folder) as record:
            run(config, seed, record)
        seconds = time.monotonic() - started
        write_json(folder / "done.json", {"seconds": seconds})
    except Exception as exception:
        error = f"{type(exception).__name__}: {exception}"
        (folder / "error.txt").write_text(traceback.format_exc(), encoding="utf-8")
    return SeedResult(part, seed, time.monotonic() - started, error)


def start(study: Study, config: StudyConfig, execution: Execution) -> RunFolder:
    """Make the run folder and write down what is about to happen."""
    folder = RunFolder.create(execution.out, study.name)
    parts = study.chosen(config)
    write_json(
        folder.path / "config.json",
        {
            "format": FORMAT,
            "study": study.name,
            "title": study.title,
            "paper": study.paper,
            "config": dataclasses.asdict(config),
            "confidence": execution.confidence,
            "parts": {p.name: {"title": p.title, "seeds": p.seeds_for(config)} for p in parts},
            "command": reproduce(study, config),
        },
    )
    write_json(folder.path / "environment.json", environment())
    return folder


def reproduce(study: Study, config: StudyConfig) -> str:
    """The command line that repeats a run."""
    words = ["surefoot", "run", study.reference]
    for f in dataclasses.fields(config):
        value = getattr(config, f.name)
        if value == (f.default if f.default is not dataclasses.MISSING else None):
            continue
        values = value if isinstance(value, (tuple, list)) else [value]
        words += ["--" + f.name.replace("_", "-"), *map(str, values)]
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

    An interrupt leaves a valid folder with the seeds that were done, and is raised again.
    """
    started = time.monotonic()
    todo = [
        (part, seed)
        for part, about in folder.parts.items()
        for seed in about["seeds"]
        if not folder.is_done(part, seed)
    ]
    write_json(folder.path / "status.json", {"state": "running", "failed": []})
    failed: list[SeedResult] = []
    state = "finished"
    try:
        for result in _parallel(study, config, folder, execution, todo):
            progress(result)
            if result.error is not None:
                failed.append(result)
    except BaseException:
        state = "interrupted"
        raise
    finally:
        if failed and state == "finished":
            state = "failed"
        write_json(
            folder.path / "status.json",
            {
                "state": state,
                "seconds": time.monotonic() - started,
                "failed": [dataclasses.asdict(f) for f in failed],
            },
        )
        certificates = conclude(study, config, folder, execution.confidence)
    return certificates


def conclude(
    study: Study, config: StudyConfig, folder: RunFolder, confidence: float
) -> list[Certificate]:
    """Derive everything a run folder says from the seeds in it."""
    records = folder.merge()
    certificates: list[Certificate] = []
    for part in study.chosen(config):
        record = records[part.name]
        missing = [s for s in part.seeds_for(config) if not folder.is_done(part.name, s)]
        if not len(record):
            continue
        made = [
            *(
                certify(record, g, confidence)
                for g in part.guarantees(config)
                if g.quantity in record
            ),
            *part.certificates(config, record),
        ]
        certificates += [_labelled(c, part, missing) for c in made]
        if not missing:
            for name, table in part.tables(config, record).items():
                folder.write_table(part.name, name, table)
            for name, figure in part.figures(config, record).items():
                folder.write_figure(part.name, name, json.loads(figure.to_json()))
    folder.write_certificates(certificates)
    return certificates


def _labelled(certificate: Certificate, part: Part, missing: list[int]) -> Certificate:
    changes: dict[str, Any] = {"part": part.name, "expected": part.expects.get(certificate.name)}
    if missing:
        # The seeds that ended may differ from those that did not: their mean proves nothing.
        note = f"seeds {', '.join(map(str, missing))} did not end"
        changes["notes"] = (*certificate.notes, note)
        if certificate.verdict in (Verdict.KEPT, Verdict.UNDECIDED):
            changes |= {"verdict": Verdict.UNDECIDED, "reason": note}
    return dataclasses.replace(certificate, **changes)


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
    calls = [
        joblib.delayed(run_seed)(
            study.reference, config, part, seed, folder.seed_folder(part, seed)
        )
        for part, seed in todo
    ]
    # joblib's Ray backend hands results back only when all are there.
    results = "list" if execution.backend == "ray" else "generator_unordered"
    with _backend(execution.backend, jobs):
        yield from joblib.Parallel(n_jobs=jobs, return_as=results, batch_size=1)(calls)


@contextmanager
def _backend(name: str, jobs: int) -> Iterator[None]:
    """Joblib's context for a backend, with one thread a process."""
    import joblib

    if name in ("ray", "dask"):
        package = {"ray": "ray", "dask": "distributed"}[name]
        if version_of(package) is None:
            raise SurefootError(
                f"backend {name!r} needs the package {package}, which is not installed; "
                f"run: pip install {package}"
            )
    if name == "dask":
        distributed = importlib.import_module("distributed")
        with distributed.Client(n_workers=jobs, threads_per_worker=1), joblib.parallel_config(name):
            yield
        return
    if name == "ray":
        check_ray()
        importlib.import_module("ray.util.joblib").register_ray()
    limits = {"inner_max_num_threads": 1} if name == "loky" else {}
    with joblib.parallel_config(backend=name, **limits):
        yield


def check_backend(name: str) -> None:
    """Refuse a backend that does not exist before anything is written."""
    if name not in BACKENDS:
        raise UnknownNameError("backend", name, BACKENDS)
