"""Ending what a federation started, also when the process that started it was killed.

Run as a script this file is the guardian of one federation: it needs the standard library alone, reads from
its standard input who is to be ended and what is to be removed, and does so when that closes, which it does
however the other end goes.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

Born = tuple[int, str]
LOOK = 0.5


def started(pid: int) -> str | None:
    """When a process began, in the kernel's clock: tells a reused number apart; None: it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if fields[0] == "Z" else fields[19]
    except (OSError, IndexError):
        return None


def descendants(pid: int) -> Iterator[Born]:
    """A process' children and theirs, each with when it began."""
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        children = [c for t in tasks for c in (t / "children").read_text().split()]
    except OSError:
        return
    for child in children:
        born = started(int(child))
        if born is not None:
            yield int(child), born
        yield from descendants(int(child))


def end(family: set[Born], seconds: float = 10.0) -> None:
    """Ask processes and their descendants to end, then make them.

    Parameters
    ----------
    family
        Who, with when they began: another process of the same number is left alone.
    seconds
        How long they may take.
    """
    there = {born for born in family if started(born[0]) == born[1]}
    # Helpers have sessions of their own: note them while their parents are known.
    there |= {found for pid, _ in there for found in descendants(pid)}
    for how in (signal.SIGTERM, signal.SIGKILL):
        for pid, born in there:
            if started(pid) == born:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, how)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if not any(started(pid) == born for pid, born in there):
                return
            time.sleep(0.05)


def guard() -> None:
    """Read lines {"process": [pid, born]}, {"folder": PATH} or {"done": true} until there are no more."""
    processes: set[Born] = set()
    helpers: dict[Born, set[Born]] = {}
    folders: list[str] = []
    buffer = b""
    while True:
        ready, _, _ = select.select([0], [], [], LOOK)
        if ready:
            chunk = os.read(0, 65536)
            if not chunk:
                break
            *lines, buffer = (buffer + chunk).split(b"\n")
            for line in lines:
                said = json.loads(line)
                if "done" in said:
                    return
                if "process" in said:
                    processes.add((said["process"][0], said["process"][1]))
                if "folder" in said:
                    folders.append(said["folder"])
        for born in processes:
            if started(born[0]) == born[1]:
                helpers[born] = set(descendants(born[0]))
            elif helpers.get(born):
                # A server that was killed leaves its helpers to nobody.
                end(helpers.pop(born))
    end(processes | {found for family in helpers.values() for found in family})
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    guard()
    sys.exit(0)
