"""Which requests are solved by matrix products, and how they are put to `Couplings`."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from surefoot.barycenter._chord.block import Matrix, Stack
from surefoot.barycenter._chord.outcome import solve
from surefoot.barycenter._chord.regular import regular
from surefoot.barycenter._solver.descent import BarzilaiBorwein, Eggd
from surefoot.barycenter._solver.initial import FREE_STARTS, initial
from surefoot.barycenter._solver.means import mean_cost, mean_maps, weighted_mean
from surefoot.barycenter._solver.request import Request
from surefoot.barycenter._solver.settings import Settings
from surefoot.barycenter._solver.solution import Solution

LARGE = 128
"""From here on the exact F of every point of a record costs more than the eigendecompositions save."""


def suits(request: Request, how: Settings) -> bool:
    """Not so: other methods, float32, other devices, a temperature that moves, means with free mass."""
    covs = request.covs
    moving = request.free and (request.mass_tau is None or request.means is not None)
    slower = how.record and covs.shape[-1] > LARGE and not bool(request.tau.isinf().all())
    return (
        how.sqrt == "eigh" and isinstance(how.rule, (BarzilaiBorwein, Eggd)) and not moving
        and covs.device.type == "cpu" and request.dtype == torch.float64 and not slower
    )  # fmt: skip


def by_products(request: Request, how: Settings) -> Solution:
    """One problem; raises Unsuited where rounding makes inputs or points singular."""
    covs, lam, t = request.covs, request.weights, request.tau
    tau = float(t)
    mean: Tensor | None = None
    offset = None
    if request.means is not None:
        mean = weighted_mean(mean_maps(covs, t), request.means, lam)
        offset = mean_cost(covs, mean[:, None] - request.means, t[:, None])[0].numpy()
    temperature = (
        float(request.mass_tau) if request.free and request.mass_tau is not None else np.inf
    )
    names = [how.init] if how.init is not None else FREE_STARTS if request.free else ["euclid"]
    A, weights = covs[0].numpy(), lam[0].numpy()
    starts = [_start(name, A, weights, request) for name in names]
    return solve(
        A, weights, tau, temperature, mean, offset, starts, how, symmetric=request.symmetric
    )


def _start(
    init: Any, A: Stack, weights: Float[np.ndarray, " n"], request: Request
) -> tuple[str, Matrix]:
    if isinstance(init, str) and init == "euclid":
        return init, (weights @ A.reshape(len(A), -1)).reshape(A.shape[1:])
    if request.covs.is_complex():
        if isinstance(init, str):
            return init, np.eye(A.shape[-1], dtype=A.dtype)
        return "array", _hermitian_start(init, A)
    made = initial(init, request.covs, request.weights, request.tau)[0].numpy()
    return init if isinstance(init, str) else "array", made


def _hermitian_start(init: Any, A: Stack) -> Matrix:
    B = np.asarray(init)
    d = A.shape[-1]
    found = regular(B.astype(A.dtype)[None]) if B.shape == (d, d) and B.dtype.kind in "fc" else None
    if found is None:
        raise ValueError(
            f"init must be a positive definite Hermitian matrix {(d, d)}, got shape {B.shape} of {B.dtype}"
        )
    start: np.ndarray = found[0][0]
    return start
