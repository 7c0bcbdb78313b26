"""The running mean of c over the micro-batches of a step."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from surefoot._numerics.checks import check_number


class RunningMean:
    """Sums of c, one a direction, with the weights of the micro-batches they come from."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Nothing was added yet."""
        self.sums: Float[np.ndarray, " q"] | None = None
        self.total = 0.0
        self.weighted: bool | None = None
        self.micro_batches = 0

    def check(self, weight: float | None) -> None:
        """Whether a micro-batch of that weight may be added.

        Raises
        ------
        ValueError
            If it is negative, or weights are given for some micro-batches of the step only.
        """
        if weight is not None:
            weight = check_number("weight", weight, least=0)
        if self.sums is not None and (weight is not None) != self.weighted:
            raise ValueError("weight must be given for all micro-batches of a step, or for none")

    def add(self, c: list[float], weight: float | None) -> float:
        """Add one micro-batch, and return the mean of its c over the directions."""
        w = 1.0 if weight is None else float(weight)
        scaled = np.array(c) * w
        self.sums = scaled if self.sums is None else self.sums + scaled
        self.total += w
        self.weighted = weight is not None
        self.micro_batches += w != 0
        return float(np.mean(c))
