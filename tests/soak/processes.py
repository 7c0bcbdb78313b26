"""Commands in processes of their own, killed at a moment that was drawn."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Ended:
    """How a command ended: its exit code (negative: a signal), what it printed and what it said of errors."""

    code: int
    out: str
    said: str

    @property
    def killed(self) -> bool:
        return self.code == -signal.SIGKILL

    @property
    def traceback(self) -> bool:
        return "Traceback (most recent call last)" in self.said + self.out


def command(
    *words: str, patience: float | None = None, family: list[int] | None = None, **environment: str
) -> Ended:
    """Run `python WORDS`; after `patience` seconds it is killed, and `family` tells whom it had started."""
    from surefoot.federated._processes import descendants

    process = subprocess.Popen(
        [sys.executable, *words], cwd=ROOT, env=os.environ | environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    try:
        out, said = process.communicate(timeout=patience)
    except subprocess.TimeoutExpired:
        if family is not None:
            family += [pid for pid, _ in descendants(process.pid)]
        process.kill()
        out, said = process.communicate()
    except BaseException:
        process.terminate()
        process.wait(60)
        raise
    return Ended(process.returncode, out, said)


def lasts(*words: str, **environment: str) -> tuple[float, Ended]:
    """How long a command takes that nobody disturbs, in seconds, and how it ended."""
    begun = time.monotonic()
    ended = command(*words, **environment)
    return time.monotonic() - begun, ended
