"""How far any candidate is from the barycenter, and whether a run stayed where it must."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch

from surefoot._numerics.arguments import checked
from surefoot._numerics.checks import called
from surefoot.barycenter._chord.hermitian import is_complex
from surefoot.barycenter._solver.initial import initial
from surefoot.barycenter._solver.problem import Problem
from surefoot.barycenter._solver.request import read_request
from surefoot.barycenter._spectral.closed_forms import Inputs
from surefoot.barycenter.bounds import gap_bound, spectral_confinement
from surefoot.barycenter.result import BarycenterResult


@checked
@checked
def optimality_gap(B: Any, covs: Any, weights: Any = None, tau: Any = "auto") -> float:
    """G5: F(B) is at most this above its minimum, for any positive definite B, whoever computed it.

    Fixed mass only. At tau = inf it judges the Wasserstein barycenter of any library. One
    eigendecomposition an input.

    Parameters
    ----------
    B
        The candidate (d, d).
    covs
        Covariances (n, d, d), one problem.
    weights
        lam_i (n,), not negative; equal by default.
    tau
        As in `suot_barycenter`.

    Raises
    ------
    ValueError
        For a singular B, and as `suot_barycenter` does.

    Source: `bounds.gap_bound`, derived here.
    """
    with torch.no_grad():
        if is_complex(covs) or is_complex(B):
            raise ValueError(
                "B and covs must be real here; give the real form [[A.real, -A.imag], [A.imag, A.real]] of "
                "complex ones: the gap is then twice that of the complex problem"
            )
        request = read_request(covs, None, weights, tau, "fixed", None).symmetrised()
        if len(request.covs) != 1:
            raise ValueError(
                f"covs must be one problem (n, d, d), got a batch of {len(request.covs)}"
            )
        if isinstance(B, str) or B is None:
            raise ValueError(f"B must be a covariance (d, d), got {B!r}")
        with called(init="B"):
            start = initial(B, request.covs, request.weights, request.tau)
        inputs = Inputs.of(request.covs, request.tau[:, None], keep=False)
        problem = Problem(inputs, request.weights, False, request.mass_tau, None)
        point = problem.at(start)
        low, high = problem.extremes()
        if bool(point.residual.isinf()):
            return math.inf
        return float(gap_bound(point.B, point.G, low, high, request.tau))


certificate = optimality_gap
"""The name of `optimality_gap` in version 0.1.0, when a number could be called a certificate."""


@dataclass(frozen=True)
class Confinement:
    """G3 on a run: the extreme eigenvalues it met and what was promised of them."""

    lowest: float
    floor: float
    """Proved for steps up to 1; alpha, the smallest eigenvalue of the inputs, is not."""
    alpha: float
    highest: float
    beta: float

    @property
    def holds(self) -> bool:
        """Within both bounds, up to rounding."""
        slack = 1e-12 * self.beta
        return self.lowest >= self.floor - slack and self.highest <= self.beta + slack


@checked
def confinement_check(result: BarycenterResult, problem: int = 0) -> Confinement:
    """Compare the run of one problem with G3; raises ValueError where no history was recorded."""
    record = result.record(problem)
    if "lambda_min" not in record:
        raise ValueError("this run left no history; call with record=True and tau > 0")
    alpha, beta, tau = (float(record.constant(n)[0]) for n in ("alpha", "beta", "tau"))
    floor = spectral_confinement(alpha, beta, tau)[0] if alpha > 0 else 0.0
    low, high = float(record["lambda_min"].min()), float(record["lambda_max"].max())
    return Confinement(low, floor, alpha, high, beta)
