"""From measured constants to step size, velocity step and momentum."""

from __future__ import annotations

import math
from dataclasses import dataclass


class NoiseWarning(UserWarning):
    """The gradient noise is larger than the chosen method tolerates."""


@dataclass(frozen=True)
class AgnesParams:
    """Constants of arXiv 2302.05515: eta (correction), alpha (lr), rho (momentum), rate s per step.

    `gamma` and `beta` are the weights of the velocity in the analysis.
    """

    eta: float
    alpha: float
    rho: float
    s: float
    gamma: float
    beta: float


def agnes_parameters(
    mu: float, L: float, sigma_mult: float = 0.0, eta: float | None = None, eps: float = 0.0
) -> AgnesParams:
    """AGNES constants."""
    if not (math.isfinite(mu) and mu > 0):
        raise ValueError(f"mu must be > 0, got {mu}")
    if not (math.isfinite(L) and mu <= L):
        raise ValueError(f"mu must be at most L = {L}, got {mu}")
    if not sigma_mult >= 0:
        raise ValueError(f"sigma_mult must be >= 0, got {sigma_mult}")
    sm2 = sigma_mult**2
    most = 1 / (L * (1 + sm2))
    if eps > 0:
        most = min(most, (1 + sm2) * mu / eps**2)
    if eta is None:
        eta = most
    if not 0 < eta <= most * (1 + 1e-12):
        raise ValueError(f"eta must be in (0, {most:.6g}], got {eta}")
    gamma = math.sqrt(eta / (1 + sm2))
    s = math.sqrt(mu) * gamma
    beta = gamma if s >= 1 or sm2 == 0 else gamma * (1 - s * (1 + sm2)) / (1 - s)
    return AgnesParams(eta, gamma * beta if sm2 else eta, (1 - s) / (1 + s), s, gamma, beta)
