"""One process at a time runs seeds into a folder, and workers that outlive it stop writing."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from surefoot.errors import SurefootError

LOCK = ".lock"
WORKER = "worker.json"
"""In the folder of a seed while it runs: by whom, should that one not live to say how it ended."""
# Longer than a reader takes to look.
PATIENCE = 2.0


@contextmanager
def alone_in(folder: Path, holder: str) -> Iterator[None]:
    """Be the only process that runs seeds into a run folder.

    Parameters
    ----------
    folder : Path
        A run folder.
    holder : str
        Who has it, for the sentence, should it be taken.

    Raises
    ------
    SurefootError
        Another process has it.
    """
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=PATIENCE)
    except Timeout:
        raise SurefootError(
            f"{folder} is in use by {holder}; wait for its end, or end it"
        ) from None
    try:
        yield
    finally:
        lock.release()


def in_use(folder: Path) -> bool:
    """Whether a process runs seeds into a folder, or may: a file system without locks cannot tell."""
    return is_locked(folder / LOCK) is not False


def is_locked(file: Path) -> bool | None:
    """Whether a living process holds a lock, which ends with it, however it ended; None: nobody can tell."""
    if not file.exists():
        return False
    lock = FileLock(file)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    except NotImplementedError:
        return None
    except OSError:
        # A folder that this user may only read.
        return False
    lock.release()
    return False


_watched: set[int] = set()


def end_with(owner: int) -> None:
    """End this worker when the process that started it is gone, also where that was killed.

    Where workers have another parent (Ray, Dask) that parent ends them.

    Parameters
    ----------
    owner : int
        The process that runs the study; this one itself where seeds run in threads.
    """
    if os.getpid() == owner or os.getppid() != owner or owner in _watched:
        return
    _watched.add(owner)

    def watch() -> None:
        while os.getppid() == owner:
            time.sleep(0.2)
        # No handler may keep it, and nobody waits for its result.
        os._exit(1)

    threading.Thread(target=watch, name="surefoot: end with the run", daemon=True).start()
