"""The promised curves."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from surefoot.nesterov.parameters import AgnesParams


def agnes_bound(
    n: Any, params: AgnesParams, f0_gap: float, dist0_sq: float, mu: float, L: float,
    sigma_add: float = 0.0,
) -> Any:  # fmt: skip
    """Bound of AGNES."""
    decay = (1 - params.s) ** np.asarray(n, dtype=float)
    floor = (L * params.eta**2 + params.gamma**2) / 2 * sigma_add**2 / params.s
    return decay * (f0_gap + mu / 2 * dist0_sq) + floor * (1 - decay)


def steps_to(
    tol: float, s: float, f0_gap: float, dist0_sq: float | None = None, mu: float | None = None
) -> int:
    """Promised steps."""
    L0 = 2 * f0_gap if dist0_sq is None or mu is None else f0_gap + mu / 2 * dist0_sq
    return max(0, math.ceil(math.log(L0 / tol) / -math.log1p(-s)))


def decreasing_bound(
    n: Any, f0_gap: float, dist0_sq: float, mu: float, L: float, sigma_add: float = 0.0
) -> Any:
    """Bound of the decreasing step."""
    n0 = max(2 * math.sqrt(L / mu), 3)
    n = np.asarray(n, dtype=float)
    L0 = f0_gap + mu / 2 * dist0_sq
    return ((n0 - 1) * (n0 - 2) * L0 + 4 * n * sigma_add**2 / mu) / ((n + n0 - 1) * (n + n0 - 2))
