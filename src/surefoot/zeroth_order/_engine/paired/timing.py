"""How long forwards take, and whether they fit: what chooses between one for all copies and one each."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import torch

from surefoot.zeroth_order._engine.paired.copies import leaves
from surefoot.zeroth_order._engine.tensors import TrainedTensor

# How often a size is timed both ways before one of them is chosen.
ROUNDS = 2


class Choice:
    """Whether one forward is the faster way, by size: timed both ways, then kept.

    Attributes
    ----------
    faster
        What was chosen; a size that is not in it is still to be timed.
    """

    def __init__(self) -> None:
        self.faster: dict[int, bool] = {}
        self._times: dict[int, list[tuple[float, float]]] = {}

    def add(self, size: int, alone: float, together: float) -> None:
        """Note a step that was taken both ways, in seconds; the last one decides."""
        taken = self._times.setdefault(size, [])
        taken.append((alone, together))
        if len(taken) >= ROUNDS:
            least = [min(each) for each in zip(*taken, strict=True)]
            self.faster[size] = least[1] <= least[0]


def out_of_memory(error: Exception) -> bool:
    """Whether a forward failed for want of memory, on whatever device."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)


def clock_of(tensors: list[TrainedTensor]) -> Callable[[], float]:
    """Seconds of this thread; on a GPU those that pass until it has done what it was given."""
    device = next((x.param.device for x in tensors), torch.device("cpu"))
    if device.type != "cuda":
        return time.thread_time

    def now() -> float:
        torch.cuda.synchronize(device)
        return time.perf_counter()

    return now


def size_of(batch: Any, k: int, rows: int) -> int:
    """A class of sizes, a power of two of the numbers in the largest tensor of k batches."""
    most = max((x.numel() for x in leaves(batch) if isinstance(x, torch.Tensor)), default=rows)
    return int(math.log2(max(k * most, 1)))
