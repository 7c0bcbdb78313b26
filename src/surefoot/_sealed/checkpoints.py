"""Checkpoints of a transformers Trainer: which one is whole, where a process was killed while it wrote one.

A Trainer writes the files of `checkpoint-N` one after the other into place, its own state as the last, and
resumes from the folder with the largest N, whatever is in it. Whoever hooks into its saving calls `begin`
before the first file and `complete` after the last, which leaves the SHA-256 of every file.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from filelock import FileLock, Timeout

from surefoot._run.files import sha256_of
from surefoot._run.in_use import is_locked
from surefoot._sealed.lines import seal_json, unseal_json
from surefoot._sealed.writing import explained, write_bytes
from surefoot.errors import warn

SUMS, SAVING, STATE = "surefoot.sums.json", "surefoot.saving", "trainer_state.json"
# Saved together or, with save_only_model, not at all.
TRAINING = ("optimizer.pt", "scheduler.pt", "rng_state*.pth")
WEIGHTS = ("*.safetensors", "*.bin")
_held: dict[Path, FileLock] = {}


@dataclass(frozen=True)
class Fault:
    """Why a checkpoint cannot be resumed from.

    Attributes
    ----------
    kind
        "half-written": its process ended while it wrote; "damaged": it was whole once.
    what
        The file, and what is wrong with it.
    """

    kind: Literal["half-written", "damaged"]
    what: str


def step_of(folder: str | Path) -> int | None:
    """N of `checkpoint-N`; None: it is another folder."""
    found = re.fullmatch(r"checkpoint-(\d+)", Path(folder).name)
    return None if found is None else int(found[1])


def begin(folder: str | Path) -> None:
    """Mark a folder as being written; what ended an earlier checkpoint in its place is taken away.

    Parameters
    ----------
    folder : str or Path
        `checkpoint-N`; made if it is not there.

    Raises
    ------
    WriteError
        A full disk, a quota, a folder that may not be written to.
    """
    folder = Path(folder)
    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
        key = folder.resolve()
        if key not in _held:
            # A lock ends with its process, however that ended.
            lock = FileLock(folder / SAVING, thread_local=False)
            _held[key] = lock
            try:
                lock.acquire(timeout=0)
            except (Timeout, NotImplementedError):
                # A file system without locks; the mark is there all the same.
                (folder / SAVING).touch()
        for name in (SUMS, STATE):
            (folder / name).unlink(missing_ok=True)


def complete(folder: str | Path) -> None:
    """Mark a folder as whole: every file of it is written, and its SHA-256 is kept.

    Parameters
    ----------
    folder : str or Path
        As `begin` had it.

    Raises
    ------
    WriteError
        A full disk, a quota, a folder that may not be written to.
    """
    folder = Path(folder)
    files = {str(p.relative_to(folder)): [p.stat().st_size, sha256_of(p)] for p in _files(folder)}
    write_bytes(folder / SUMS, seal_json({"format": 1, "files": files}))
    _release(folder)
    (folder / SAVING).unlink(missing_ok=True)


def give_up(folder: str | Path) -> None:
    """Remove a folder that could not be written, unless all of it is there but its mark.

    The Trainer has then removed older checkpoints already.
    """
    folder = Path(folder)
    _release(folder)
    if fault(folder) is not None:
        shutil.rmtree(folder, ignore_errors=True)


def fault(folder: str | Path) -> Fault | None:
    """What is wrong with a checkpoint; None: it is whole, as far as its files tell.

    Parameters
    ----------
    folder : str or Path
        `checkpoint-N`. One that was written without `complete` (by another Trainer, or by a process that was
        killed within it) is whole if the Trainer's own state, which is written last, is.
    """
    folder = Path(folder)
    if (folder / SUMS).exists():
        what = _changed(folder)
        return None if what is None else Fault("damaged", what)
    try:
        step = json.loads((folder / STATE).read_text(encoding="utf-8"))["global_step"]
    except (OSError, ValueError, KeyError, TypeError):
        return Fault("half-written", f"{STATE} is missing or cut off")
    if step != step_of(folder):
        return Fault("half-written", f"{STATE} is of step {step}")
    there = [bool(list(folder.glob(pattern))) for pattern in TRAINING]
    if any(there) and not all(there):
        return Fault("half-written", f"{TRAINING[there.index(False)]} is missing")
    if not any(list(folder.rglob(pattern)) for pattern in WEIGHTS):
        return Fault("half-written", "the weights are missing")
    return None


def set_aside(output_dir: str | Path) -> list[Path]:
    """Rename the checkpoints that are newer than the newest whole one, so that a Trainer finds that.

    A half-written one becomes `incomplete-checkpoint-N`. A damaged one becomes `damaged-checkpoint-N`, if
    there is a whole one to go back to. One that a living process writes is left alone.

    Parameters
    ----------
    output_dir : str or Path
        Of the Trainer.

    Returns
    -------
    list of Path
        The damaged ones that stay, newest first, as nothing is left to go back to.

    Warns
    -----
    UserWarning
        A line for each that was renamed.
    """
    faulty = list[tuple[Path, Fault]]()
    whole = None
    for folder in _newest_first(Path(output_dir)):
        if _is_being_written(folder):
            continue
        found = fault(folder)
        if found is None:
            whole = folder
            break
        faulty.append((folder, found))
    left = []
    for folder, found in faulty:
        if found.kind == "damaged" and whole is None:
            left.append(folder)
            continue
        to = _free(folder, "incomplete" if found.kind == "half-written" else "damaged")
        folder.rename(to)
        then = f"training resumes from {whole.name}" if whole is not None else "no other is whole"
        warn(
            f"{folder} is {found.kind} ({found.what}): it is now {to.name}, and {then}", UserWarning
        )
    return left


def any_left(output_dir: str | Path) -> bool:
    """Whether there is a checkpoint to resume from."""
    return any(True for _ in _newest_first(Path(output_dir)))


def any_aside(output_dir: str | Path) -> bool:
    """Whether `set_aside` has renamed one here."""
    return any(Path(output_dir).glob("incomplete-checkpoint-*"))


def _newest_first(output_dir: Path) -> Iterator[Path]:
    there = output_dir.iterdir() if output_dir.is_dir() else ()
    steps = {p: step_of(p) for p in there if p.is_dir()}
    found = [(step, p) for p, step in steps.items() if step is not None]
    yield from (p for _, p in sorted(found, reverse=True))


def _files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name not in (SUMS, SAVING) and path.suffix != ".part":
            yield path


def _changed(folder: Path) -> str | None:
    try:
        files = unseal_json((folder / SUMS).read_bytes())["files"]
    except (OSError, ValueError, KeyError) as error:
        return f"{SUMS}: {error}"
    for name, (size, digest) in files.items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != size:
            return f"{name} has {path.stat().st_size} bytes, {size} were written"
        if sha256_of(path) != digest:
            return f"{name} is not what was written"
    return None


def _is_being_written(folder: Path) -> bool:
    if folder.resolve() in _held:
        # By this process, whose saving failed.
        _release(folder)
        return False
    return is_locked(folder / SAVING) is True


def _release(folder: Path) -> None:
    lock = _held.pop(folder.resolve(), None)
    if lock is not None:
        lock.release(force=True)


def _free(folder: Path, word: str) -> Path:
    names = (f"{word}-{folder.name}{end}" for end in ("", *(f".{i}" for i in range(2, 10_000))))
    return next(folder.with_name(name) for name in names if not folder.with_name(name).exists())
