"""Interim."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linprog


@dataclass(frozen=True)
class NoiseSample:
    """Interim."""

    V: float
    grad_sq: float
    V1: float
    batch_size: int


@dataclass(frozen=True)
class NoiseFit:
    """Interim."""

    sigma_mult: float
    sigma_add: float
    r2: float
    n: int


def fit_noise(samples: Sequence[NoiseSample], kind: str = "envelope") -> NoiseFit:
    """Interim."""
    V = np.array([s.V for s in samples])
    G = np.array([s.grad_sq for s in samples])
    found = linprog(
        [(1 / V).sum(), (G / V).sum()], A_ub=np.stack([-1 / V, -G / V], 1), b_ub=-np.ones(len(V)),
        bounds=[(0, None)] * 2,
    ).x  # fmt: skip
    return NoiseFit(float(np.sqrt(found[1])), float(np.sqrt(found[0])), 0.0, len(V))
