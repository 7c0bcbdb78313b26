"""How far rounding may move the gradient, measured: few digits of what is small survive a condition of 1e10.

A residual that is computed in one way says nothing of it: dense inputs with one dominant direction had 8e-11
reported where 3e-8 was true, to sixty digits.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float64, Inexact
from torch import Tensor

from surefoot.barycenter._solver.problem import Point, Problem, inner
from surefoot.barycenter._spectral.closed_forms import Inputs

EPS = 2.0**-52
DRAWS = 2
SHARE = 0.25
"""Of tol: where rounding cannot reach that it is not measured."""


def shaken(
    A: Inexact[np.ndarray, "n d d"], rng: np.random.Generator
) -> Inexact[np.ndarray, "n d d"]:
    """Every entry changed by at most an ulp, symmetrically."""
    by = np.triu(rng.uniform(-1, 1, A.shape))
    by += np.triu(by, 1).swapaxes(-1, -2)
    found: np.ndarray = A * (1 + EPS * by)
    return found


def moved_by_rounding(
    covs: Float64[Tensor, "b n d d"], problem: Problem, point: Point, tol: float
) -> Float64[Tensor, "b"]:
    """||dG||_B / sqrt(tr B) of each problem, the larger of two draws; 0 where it is below tol/4 for sure.

    Entries of the inputs are changed by at most an ulp at random, and every input is decomposed again.
    """
    found = torch.zeros_like(point.F)
    # What the rank rule has set to 0 is no number that rounding could move.
    there = (problem.inputs.w > 0) & (problem.weights > 0)[..., None]
    low = torch.where(there, problem.inputs.w, torch.inf).amin(dim=-1)
    high = torch.where(there, problem.inputs.w, 0.0).amax(dim=-1)
    doubtful = (EPS * high > SHARE * tol * low).any(dim=-1)
    for i in doubtful.nonzero()[:, 0].tolist():
        found[i] = _moved(covs[i], problem.tau[i], point.B[i], point.p[i])
    return found


def _moved(
    covs: Float64[Tensor, "n d d"], tau: Float64[Tensor, ""], B: Float64[Tensor, "d d"],
    p: Float64[Tensor, "n"],
) -> float:  # fmt: skip
    rng, given = np.random.default_rng(0), covs.cpu().numpy()
    means = []
    for i in range(DRAWS + 1):
        A = torch.from_numpy(shaken(given, rng)).to(covs) if i else covs
        inputs = Inputs.of(A[None], tau.view(1, 1), keep=False)
        means.append(inputs.evaluate(B[None, None]).mean_map(p[None])[0])
    moved = max(float(inner(mean - means[0], mean - means[0], B)) for mean in means[1:])
    return float((max(moved, 0.0) / float(B.trace())) ** 0.5)
