"""Rows of a call of C spread over threads."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import TypeVar

T = TypeVar("T")


class _Pool:
    """Threads beside the caller's; new ones after a fork, in which threads do not live on."""

    def __init__(self) -> None:
        self.pid, self.threads = -1, 0
        self.lock = threading.Lock()
        self.executor: ThreadPoolExecutor | None = None

    def __call__(self, threads: int) -> ThreadPoolExecutor:
        with self.lock:
            if self.executor is None or self.pid != os.getpid() or self.threads < threads:
                self.executor = ThreadPoolExecutor(threads, thread_name_prefix="surefoot")
                self.pid, self.threads = os.getpid(), threads
            return self.executor


_pool = _Pool()


def shared(some: Callable[[int, int], T], rows: int, many: int) -> list[T]:
    """What a function returns for each share of the rows, in their order; the first is the caller's own.

    Parameters
    ----------
    some
        Works on rows a to b - 1. A call of C by ctypes lets other threads run.
    rows
        How many there are.
    many
        How many threads work on them.
    """
    if many == 1:
        return [some(0, rows)]
    shares = list(pairwise(rows * k // many for k in range(many + 1)))
    others = [_pool(many - 1).submit(some, *share) for share in shares[1:]]
    return [some(*shares[0]), *(other.result() for other in others)]
