"""One number a step between processes: the mean of c over their shards."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch


class Reducer:
    """Averages over a process group, or does nothing where there is none."""

    def __init__(self, group: Any = None) -> None:
        there = torch.distributed.is_available() and torch.distributed.is_initialized()
        if group is not None and not there:
            raise ValueError("process_group needs torch.distributed.init_process_group before it")
        self.group = group
        self.size = torch.distributed.get_world_size(group) if there else 1
        self._digest: int | None = None

    def _sum(self, values: np.ndarray) -> np.ndarray:
        tensor = torch.from_numpy(np.array(values, dtype=np.float64))
        if torch.distributed.get_backend(self.group) == "nccl":
            tensor = tensor.cuda()
        torch.distributed.all_reduce(tensor, group=self.group)
        summed: np.ndarray = tensor.cpu().numpy()
        return summed

    def expect(self, digest: bytes) -> None:
        """Send a digest of the parameters along with the next scalars: all processes must start equal."""
        self._digest = int.from_bytes(digest[:3], "little")

    def mean(self, sums: np.ndarray, total: float, weighted: bool) -> np.ndarray:
        """Mean of c over micro-batches and processes; with weights their total travels too.

        Raises
        ------
        ValueError
            In every process, if the parameters they started from differ.
        """
        if self.size == 1:
            return np.asarray(sums / total)
        sent = np.append(sums, total) if weighted else sums / total
        digest, self._digest = self._digest, None
        if digest is not None:
            sent = np.append(sent, [digest, digest * digest])
        summed = self._sum(sent)
        if digest is not None:
            first, second = (int(v) for v in summed[-2:])
            summed = summed[:-2]
            # Equality in Cauchy and Schwarz: every process comes to the same conclusion.
            if self.size * second != first * first:
                raise ValueError(
                    "parameters differ between processes: "
                    "load the same weights everywhere before the first step"
                )
        return np.asarray(summed[:-1] / summed[-1] if weighted else summed / self.size)
