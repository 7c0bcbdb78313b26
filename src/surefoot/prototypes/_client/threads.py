"""One thread: the order of a sum, and with it the bits, must not depend on the machine."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager

import sklearn.cluster  # noqa: F401  loads the pools that are looked for
import torch
from threadpoolctl import ThreadpoolController


@contextmanager
def one_thread() -> Iterator[None]:
    """For torch, and for the pools of BLAS and OpenMP that scikit-learn uses."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with _pools().limit(limits=1):
            yield
    finally:
        torch.set_num_threads(before)


@functools.cache
def _pools() -> ThreadpoolController:
    """Looking for them takes longer than a small upload."""
    return ThreadpoolController()
