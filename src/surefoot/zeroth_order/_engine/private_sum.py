"""The sum of a step's clipped scalars, exact in whatever order it is taken, and its noise."""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from surefoot.zeroth_order._engine.scalars import RunningMean
from surefoot.zeroth_order.private import Privacy

# A clip is this many bits of the grid: sums of less than 2^22 examples are exact in float64.
BITS = 30
# What the rounding of a scaled vector may add to its norm, and a little more.
BELOW = 1 - 2.0**-45


class PrivateSum(RunningMean):
    """Gathers clip(c_i, C) of micro-batches; knows nothing of how many examples there were when it releases.

    Parameters
    ----------
    privacy
        The mechanism.
    directions
        K, numbers of an example.
    """

    def __init__(self, privacy: Privacy, directions: int) -> None:
        self.privacy, self.directions = privacy, directions
        c = privacy.clip
        self.grid = 0.0 if math.isinf(c) else 2.0 ** (math.frexp(c)[1] - 1 - BITS)
        super().__init__()

    def clear(self) -> None:
        """Nothing was added yet."""
        super().clear()
        self.examples = 0
        self._steps = np.zeros(self.directions, dtype=np.int64)
        self._unclipped: list[list[float]] = [[] for _ in range(self.directions)]

    def include(self, c: Float[Tensor, "examples directions"]) -> None:
        """Add the examples of a micro-batch; what is not finite counts as 0."""
        found = clipped(c, self.privacy.clip)
        self.examples += len(found)
        if self.grid:
            # Towards 0, so that no example is more than C.
            steps = torch.trunc(found / self.grid).to(torch.int64).sum(dim=0)
            self._steps = self._steps + steps.numpy()
        else:
            for mine, column in zip(self._unclipped, found.T.tolist(), strict=True):
                mine.extend(column)
        self.sums, self.total, self.weighted = np.zeros(self.directions), 1.0, False
        self.micro_batches = 1

    def sum(self, *, noise: bool) -> Float[np.ndarray, " directions"]:
        """s: the sum over the examples, with the noise of the mechanism or without."""
        if self.grid:
            found = self._steps.astype(np.float64) * self.grid
        else:
            found = np.array([math.fsum(column) for column in self._unclipped])
        return found + self.privacy.noise(self.directions) if noise else found


def clipped(
    c: Float[Tensor, "examples directions"], clip: float
) -> Float[Tensor, "examples directions"]:
    """Each row within C in L2, in double; 0 where something of it is not finite."""
    found = c.double().cpu()
    finite = torch.isfinite(found).all(dim=1, keepdim=True)
    found = torch.where(finite, found, torch.zeros_like(found))
    if math.isinf(clip):
        return found
    if found.shape[1] == 1:
        return found.clamp(-clip, clip)
    # Of the largest entry first: the square of a finite number need not be finite.
    largest = found.abs().amax(dim=1, keepdim=True).clamp(min=torch.finfo(torch.float64).tiny)
    unit = found / largest
    norm = unit.norm(dim=1, keepdim=True) * largest
    inside = norm <= clip * BELOW
    scaled = unit * (clip * BELOW / unit.norm(dim=1, keepdim=True))
    return torch.where(inside, found, scaled)
