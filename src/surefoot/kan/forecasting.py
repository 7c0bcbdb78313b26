"""T2: what the spectrum of K forecasts of the loss; exact for the linearised model, a heuristic for others.

For mini-batches the mean over the draws, by the recursion of second moments M = E r r' (T3-forecast).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from surefoot._numerics.arguments import checked
from surefoot._numerics.checks import check_number, check_numbers
from surefoot.kan.spectrum import SINGULAR, Tangent, check_tangent

POWERS = 300


@checked
def forecast(
    tangent: Tangent,
    r0: Any,
    eta: float,
    steps: Any,
    batch: int | None = None,
) -> Float64[Tensor, " steps"]:
    """L_t of gradient descent, 1/2 sum_i (1 - eta lambda_i)^(2t) (v_i' r0)^2; its mean for mini-batches.

    Parameters
    ----------
    tangent
        At the start.
    r0
        The residual there.
    eta
        The step size; beyond 2 / lambda_max the forecast diverges.
    steps
        T for t = 0, 1, .., T, or the steps to forecast.
    batch
        None: full batch. B: rows drawn with replacement, gradient (n/B) sum_{i in batch} r_i J_i; the
        recursion M <- M - eta (KM + MK) + eta^2 K [(n/B) diag(M) + (1 - 1/B) M] K runs through all steps
        up to the last, n^3 each.

    Raises
    ------
    ValueError
        A step size or step that is none, or r0 of another length.
    """
    r = _residual(check_tangent(tangent), r0)
    eta = check_number("eta", eta, above=0)
    where = _steps(steps)
    if batch is None:
        part, shrink = tangent.eigvecs.T @ r, (1 - eta * tangent.eigvals).abs()
        # By logarithms: a power of 1e6 of a shrink of 0.9 must be 0 and not an error.
        twice = 2 * torch.tensor(where, dtype=torch.float64)[:, None]
        return 0.5 * (torch.pow(shrink, twice) * part**2).sum(1)
    B = check_number("batch", batch, least=1, whole=True)
    wanted: dict[int, float] = {}
    M, K, n = torch.outer(r, r), tangent.K, len(r)
    asked, last = set(where), max(where, default=0)
    for t in range(last + 1):
        if t in asked:
            wanted[t] = float(M.trace()) / 2
        if t == last:
            break
        KM = K @ M
        noise = M * (1 - 1 / B) + torch.diag(M.diagonal() * (n / B))
        M = M - eta * (KM + KM.T) + eta**2 * (K @ noise @ K)
        if not bool(M.isfinite().all()):
            wanted |= {s: math.inf for s in asked if s > t}
            break
    return torch.tensor([wanted[t] for t in where], dtype=torch.float64)


@checked
def steps_to(tangent: Tangent, r0: Any, eta: float, eps: float) -> float:
    """The first step at which the full-batch forecast is at most eps; infinite where there is none.

    Parameters
    ----------
    tangent, r0, eta
        As in `forecast`; eta must be below 2 / lambda_max.
    eps
        The loss wanted.

    Raises
    ------
    ValueError
        A step size at which the forecast diverges.
    """
    eta = check_number("eta", eta, above=0)
    eps = check_number("eps", eps, above=0)
    check_tangent(tangent)
    if eta * tangent.lambda_max >= 2:
        raise ValueError(
            f"eta must be below 2 / lambda_max = {2 / tangent.lambda_max:.6g}, got {eta}: the forecast "
            "diverges"
        )
    r = _residual(tangent, r0)
    high = 1
    while float(forecast(tangent, r, eta, [high])[0]) > eps:
        high *= 2
        if high > 2**60:
            return math.inf
    low = -1 if high == 1 else high // 2
    while high - low > 1:
        middle = (low + high) // 2
        met = float(forecast(tangent, r, eta, [middle])[0]) <= eps
        low, high = (low, middle) if met else (middle, high)
    return high


@checked
def stability_limit(tangent: Tangent, batch: int | None = None) -> float:
    """The step size from which the (mean-square) forecast no longer tends to its limit.

    2 / lambda_max for the full batch. For mini-batches the largest eta at which the noise that a residual
    makes decays faster than it makes more: the spectral radius of (1 - S)^-1 N is 1, with S M =
    (1 - eta K) M (1 - eta K) and N M = eta^2 K [n diag(M) - M] K / B, both of which keep M positive.

    Parameters
    ----------
    tangent
        At the start.
    batch
        Rows drawn with replacement; None: all.
    """
    if not check_tangent(tangent).lambda_max > 0:
        raise ValueError("tangent must have a positive eigenvalue, got K = 0: nothing trains")
    full = 2 / tangent.lambda_max
    if batch is None:
        return full
    B = check_number("batch", batch, least=1, whole=True)
    low, high = 0.0, full
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (middle, high) if _radius(tangent, middle, B) < 1 else (low, middle)
    return low


def _radius(tangent: Tangent, eta: float, batch: int) -> float:
    """Of (1 - S)^-1 N, by power iteration from the identity, in K's eigenbasis."""
    lam, V = tangent.eigvals.clamp(min=0).numpy(), tangent.eigvecs.numpy()
    alive = lam > SINGULAR * lam.max()
    keep = np.outer(alive, alive)
    both = np.outer(lam, lam)
    room = np.where(keep, eta * (lam[:, None] + lam[None, :]) - eta**2 * both, 1.0)
    weight = np.where(keep, both * eta**2 / batch / room, 0.0)
    n, value = len(lam), 0.0
    M = np.eye(n) / n
    for _ in range(POWERS):
        # diag(M) in the basis of the rows, and back.
        rows = ((V @ M) * V).sum(axis=1)
        M = weight * (n * (V.T * rows) @ V - M)
        before, value = value, float(M.trace())
        if value == 0 or not math.isfinite(value):
            return value
        M = M / value
        if abs(value - before) <= 1e-8 * value:
            break
    return value


def _residual(tangent: Tangent, r0: Tensor) -> Float64[Tensor, " n"]:
    r = torch.from_numpy(check_numbers("r0", r0)).reshape(-1)
    if len(r) != len(tangent.eigvals):
        raise ValueError(
            f"r0 must have as many numbers as K has rows, {len(tangent.eigvals)}, got {len(r)}"
        )
    return r


def _steps(steps: Any) -> list[int]:
    if isinstance(steps, (list, tuple, range)) or getattr(steps, "ndim", 0) == 1:
        return [check_number("steps", t, least=0, whole=True) for t in steps]
    return list(range(check_number("steps", steps, least=0, whole=True) + 1))
