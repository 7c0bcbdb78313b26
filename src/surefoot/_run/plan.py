"""What is about to run: how a run folder begins, and what a resumed one was made with."""

from __future__ import annotations

import dataclasses
import shlex
from typing import Any

from surefoot._run.environment import environment
from surefoot._run.execution import Execution as Execution
from surefoot._run.folder import FORMAT, RunFolder
from surefoot.errors import ArgumentError, FileFormatError, SurefootError, UnknownNameError
from surefoot.study import Part, Study, StudyConfig


def start(study: Study, config: StudyConfig, execution: Execution) -> RunFolder:
    """Make the run folder and write down what is about to happen."""
    # First, as it refuses: what cannot run leaves no folder behind.
    parts = study.runnable(config)
    planned = {p.name: _about(p, config, execution) for p in parts}
    skipped = {p.name: sorted(p.missing) for p in study.chosen(config) if p not in parts}
    plan = {
        "format": FORMAT,
        "study": study.name,
        "title": study.title,
        "paper": study.paper,
        "config": dataclasses.asdict(config),
        "confidence": execution.confidence,
        "parts": planned,
        "skipped": skipped,
        "command": reproduce(study, config, execution),
    }
    files = {"config.json": plan, "environment.json": environment()}
    return RunFolder.create(execution.out, study.name, files)


def _about(part: Part, config: StudyConfig, execution: Execution) -> dict[str, Any]:
    about: dict[str, Any] = {"title": part.title, "seeds": part.seeds_for(config)}
    if execution.until_decided and len(about["seeds"]) > execution.most_seeds:
        raise ArgumentError(
            "max_seeds",
            f"must be at least the {len(about['seeds'])} seeds that part {part.name} starts with, "
            f"got {execution.most_seeds}",
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


def resume(study: Study, folder: RunFolder, execution: Execution) -> str:
    """The command line that goes on with a run that was interrupted."""
    words = ["surefoot", "run", study.reference, "--resume", str(folder.path)]
    for f in dataclasses.fields(execution):
        value = getattr(execution, f.name)
        # The folder says where it is.
        if f.name == "out" or value == f.default:
            continue
        words += ["--" + f.name.replace("_", "-"), *([] if value is True else [str(value)])]
    return shlex.join(words)


def config_of(study: Study, folder: RunFolder) -> StudyConfig:
    """The configuration that a run folder was made with."""
    stored: dict[str, Any] = folder.config["config"]
    names = {f.name for f in dataclasses.fields(study.config)}
    values: dict[str, Any] = {
        k: tuple(v) if isinstance(v, list) else v for k, v in stored.items() if k in names
    }
    try:
        return study.config(**values)
    except (TypeError, ValueError, SurefootError) as error:
        raise FileFormatError(
            f"{folder.path / 'config.json'} holds no configuration of study {study.name}: {error}"
        ) from error


def resumable(study: Study, folder: RunFolder) -> None:
    """Refuse a run folder whose parts are not the study's own, or that would write somewhere else.

    Parameters
    ----------
    study : Study
        What is to be run on.
    folder : RunFolder
        A run of it, or a folder that says so.

    Raises
    ------
    SurefootError
        It is a run of another study or has a part that the study has not.
    FileFormatError
        It holds a link.
    """
    if folder.study != study.name:
        raise SurefootError(f"{folder.path} is a run of {folder.study}, not {study.name}")
    own = [p.name for p in study.parts]
    for part in folder.parts:
        if part not in own:
            raise UnknownNameError(f"part of study {study.name} in {folder.path}", part, own)
    for path in (*folder.path.iterdir(), *(folder.path / "seeds").glob("*")):
        if path.is_symlink():
            raise FileFormatError(
                f"{path} is a link: a run writes into its own folder alone; copy what it points to"
            )
