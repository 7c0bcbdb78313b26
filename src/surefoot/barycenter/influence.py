"""G6: how much of the average one input can be, however wrong it is."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64

from surefoot._numerics.arguments import checked
from surefoot.barycenter._solver.checks import as_covariances, as_tau
from surefoot.barycenter._spectral.closed_forms import spectrum
from surefoot.barycenter._spectral.ranks import ranked
from surefoot.barycenter.bounds import influence_bound, stretch_bound
from surefoot.barycenter.result import BarycenterResult


@checked
def map_limit(B: Any, tau: float) -> Float64[np.ndarray, "d d"]:
    """(I + (I + 2 tau B^-1)^1/2) / 2, what the map S_i from B becomes as its input A_i grows without limit.

    S_i enters the optimality condition sum_i lam_i S_i = I, so this is the most that one input of fixed
    mass can pull: S is monotone in A, and S_i never exceeds this. No such limit exists at tau = inf,
    and none from below: as A_i vanishes so does S_i, and the other inputs must make up for it.

    B is a positive definite covariance (d, d), tau a finite price in the unit of a variance. Raises
    ValueError for anything else. Derived here.
    """
    b, t = as_covariances(B, "B").detach(), float(as_tau(tau, zero=True))
    if b.ndim != 2 or bool((ranked(spectrum(b).clamp(min=0)) == 0).any()):
        raise ValueError(
            "B must be one positive definite matrix (d, d); add a ridge if it is singular"
        )
    if math.isinf(t):
        raise ValueError("tau must be finite: at tau = inf a large input pulls without limit")
    w, V = np.linalg.eigh(b.cpu().numpy())
    return np.asarray((V * ((1 + np.sqrt(1 + 2 * t / w)) / 2)) @ V.T)


@checked(nan=True)
@dataclass(frozen=True)
class Breakdown:
    """The influence of every input of one problem, beside what bounds it."""

    weight: Float64[np.ndarray, " n"]
    """The effective weight."""
    weight_bound: Float64[np.ndarray, " n"] | None
    """`bounds.influence_bound`; None for fixed mass, whose weights are those given."""
    stretch: Float64[np.ndarray, " n"]
    """The largest eigenvalue of the map S_i."""
    stretch_bound: float
    """That of `map_limit`; inf at tau = inf."""

    @property
    def holds(self) -> bool:
        """Within the bounds, up to rounding."""
        light = self.weight_bound is None or bool((self.weight <= self.weight_bound + 1e-15).all())
        return light and bool((self.stretch <= self.stretch_bound * (1 + 1e-9)).all())


@checked
def breakdown(result: BarycenterResult, problem: int = 0) -> Breakdown:
    """What one input can do to this average; as core Guarantees it is `guarantee.influence`.

    Fixed mass bounds the pull of inputs that are too large, and nothing bounds that of inputs that
    vanish; with free mass any input's weight falls exponentially with its `outlier_score`.
    """
    record = result.influence_record(problem)
    temperature, tau, low = (
        float(record.constant(name)[0]) for name in ("temperature", "tau", "lambda_min")
    )
    bound = None
    if math.isfinite(temperature):
        bound = influence_bound(record["upsilon"][0], record["lam"][0], temperature)
    return Breakdown(
        weight=record["weight"][0],
        weight_bound=bound,
        stretch=record["stretch"][0],
        stretch_bound=stretch_bound(low, tau),
    )
