"""The pair of the Gaussian mechanism: one shift."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from surefoot._numerics.hockey_stick.mixture import Pair, Support


@dataclass(frozen=True)
class GaussianPair(Pair):
    """N(mu, 1) and N(0, 1), mu > 0."""

    mu: float
    variance = 0.0
    floor = -math.inf

    @property
    def mean(self) -> float:
        """mu."""
        return self.mu

    @property
    def most(self) -> float:
        """mu."""
        return self.mu

    def support(self, u: float, side: int = 0) -> Support:
        """One shift, of weight 1."""
        return Support(np.array([self.mu]), np.array([0.0]))
