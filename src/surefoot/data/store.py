"""The cache on disk: where it is, who may write to it, and how a file becomes visible whole."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from surefoot._numerics.arguments import checked
from surefoot._run.files import sha256_of as sha256_of
from surefoot.data.catalogue import File
from surefoot.data.errors import DataError

Say = Callable[[str], None]

# EFBIG is what a limit on file sizes answers, EDQUOT a quota: to the user all three are a full disk
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@checked
def cache_dir() -> Path:
    """Where data is kept: `SUREFOOT_DATA`, else `surefoot` in the user's cache directory."""
    chosen = os.environ.get("SUREFOOT_DATA")
    if chosen:
        return Path(chosen).expanduser().absolute()
    shared = os.environ.get("XDG_CACHE_HOME", "")
    # the XDG specification tells to ignore a relative path
    if os.path.isabs(shared):
        return Path(shared) / "surefoot"
    try:
        return Path.home() / ".cache" / "surefoot"
    except RuntimeError:
        raise DataError(
            "this user has no home directory to keep data in; set SUREFOOT_DATA to a folder"
        ) from None


def full_disk(doing: str) -> DataError:
    """The error for a disk without room."""
    return DataError(
        f"no room to {doing}: the disk that holds {cache_dir()} is full; free some space, or set "
        "SUREFOOT_DATA to a folder on another disk"
    )


@contextmanager
def explained(doing: str) -> Iterator[None]:
    """Turn an error of the file system into one sentence."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise full_disk(doing) from error
        raise DataError(
            f"cannot {doing} in {cache_dir()}: {error.strerror or error}; set SUREFOOT_DATA to a "
            "folder that you can write to"
        ) from error


def has_sizes(root: Path, files: Mapping[str, File]) -> bool:
    """Whether every file is there with the right number of bytes: quick, and no proof."""
    try:
        return all((root / path).stat().st_size == file.size for path, file in files.items())
    except OSError:
        return False


def damage(root: Path, files: Mapping[str, File]) -> str | None:
    """What is wrong with the first file that is not the pinned one, or None: reads every byte."""
    for path, file in files.items():
        try:
            found = sha256_of(root / path)
        except OSError as error:
            return f"{root / path} cannot be read: {error.strerror or error}"
        if found != file.sha256:
            return f"{root / path} has SHA-256 {found}, expected {file.sha256}"
    return None


@contextmanager
def exclusive(name: str, say: Say) -> Iterator[None]:
    """Be the only process, and the only thread, that fetches `name` into this cache."""
    # imported here so that looking at the catalogue needs the standard library alone
    from filelock import FileLock, Timeout

    with explained(f"lock {name}"):
        cache_dir().mkdir(parents=True, exist_ok=True)
        lock = FileLock(cache_dir() / f".{name}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            say(f"another process is fetching {name}: waiting for it")
            lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def staging(name: str) -> Iterator[Path]:
    """A folder beside the final place, on the same disk; gone afterwards whatever happens.

    Call it under `exclusive`: what a killed process left behind is removed on that assumption.
    """
    with explained(f"fetch {name}"):
        for left_behind in cache_dir().glob(f".{name}.*.part"):
            shutil.rmtree(left_behind, ignore_errors=True)
        work = Path(tempfile.mkdtemp(prefix=f".{name}.", suffix=".part", dir=cache_dir()))
    try:
        with explained(f"fetch {name}"):
            yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


def put(staged: Path, name: str, work: Path) -> Path:
    """Move a finished folder to its final place in one step and return that place."""
    final = cache_dir() / name
    if final.exists():
        # a folder cannot be replaced by a folder in one step; only a damaged one gets here
        os.replace(final, work / "damaged")
    os.replace(staged, final)
    return final
