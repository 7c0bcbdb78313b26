"""The closest minimiser of a residual problem f = |r|^2 / 2: a point of M = {r = 0}."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

FAILED = 1e-6
Residual = Callable[[Float[Tensor, " P"]], Float[Tensor, " m"]]


@dataclass(frozen=True)
class Projection:
    """The point found, and how far to trust it.

    Attributes
    ----------
    point, distance
        The candidate for pi(y), and |y - point|.
    residual
        f(point) / f(y): how far the point is from M.
    optimality
        |tangential part of y - point| / |y - point|: 0 at a stationary point of the distance.
    ok
        Both at most 1e-6. A projection that is not ok must not be used.
    """

    point: Float[Tensor, " P"]
    distance: float
    residual: float
    optimality: float
    ok: bool


def retract(
    residual: Residual, t: Float[Tensor, " P"], *, target: float, iterations: int = 50
) -> tuple[Float[Tensor, " P"], float]:
    """Damped Gauss-Newton onto M: t <- t - J^T (J J^T + delta I)^-1 r, until |r|^2/2 <= target."""
    damping = 1e-3
    r = residual(t)
    f = 0.5 * float(r @ r)
    for _ in range(iterations):
        if f <= target:
            break
        J = torch.func.jacrev(residual)(t)
        gram = J @ J.T
        scale = float(gram.diagonal().mean())
        improved = False
        for _ in range(12):
            shifted = gram + damping * scale * torch.eye(len(gram), dtype=gram.dtype)
            candidate = t - J.T @ torch.linalg.solve(shifted, r)
            r_new = residual(candidate)
            f_new = 0.5 * float(r_new @ r_new)
            if f_new < f:
                t, r, f, improved = candidate, r_new, f_new, True
                damping = max(damping / 30, 1e-15)
                break
            damping = max(damping * 10, 1e-12)
        if not improved:
            break
    return t, f


def _tangential(J: Float[Tensor, "m P"], d: Float[Tensor, " P"]) -> Float[Tensor, " P"]:
    """d minus its part in the row space of J, which may be rank deficient."""
    solution = torch.linalg.lstsq(J.T, d.unsqueeze(1), driver="gelsd").solution
    return d - J.T @ solution.squeeze(1)


def project(
    residual: Residual,
    y: Float[Tensor, " P"],
    start: Float[Tensor, " P"],
    *,
    tol: float = 1e-8,
    max_residuals: int = 3000,
    iterations: int = 500,
) -> Projection:
    """Project y onto M = {residual = 0}, beginning with a retraction of `start`.

    Riemannian descent of |t - y|^2: t <- retract(t + tau (tangential part of y - t)) with
    backtracking in tau, until the tangential part is below tol times |y - t|. The result is a local
    minimum of the distance; the start, best the end of a run that passed y, decides which.

    Raises
    ------
    ValueError
        More than `max_residuals` residuals, or tol not positive.

    Notes
    -----
    In the setting of arXiv 2410.08395; the algorithm is ours. Newton on the Lagrange conditions from
    y diverges on networks and is not used.
    """
    if not tol > 0:
        raise ValueError(f"tol must be > 0, got {tol}")
    r = residual(y)
    if len(r) > max_residuals:
        raise ValueError(
            f"projection handles at most max_residuals = {max_residuals} residuals, got {len(r)}; use "
            'the ledger with anchor="final", which needs no projection'
        )
    f_y = 0.5 * float(r @ r)
    if f_y == 0:
        return Projection(y.clone(), 0.0, 0.0, 0.0, True)
    target = 1e-26 * f_y
    t, f = retract(residual, start, target=target)
    tau, optimality = 1.0, float("inf")
    tangential = _tangential(torch.func.jacrev(residual)(t), y - t)
    for _ in range(iterations):
        length = float((y - t).norm())
        optimality = float(tangential.norm()) / length if length > 0 else 0.0
        if optimality < tol:
            break
        for _ in range(40):
            candidate, f_new = retract(residual, t + tau * tangential, target=target)
            following = _tangential(torch.func.jacrev(residual)(candidate), y - candidate)
            # Near the end the distance no longer resolves progress, the tangential part does.
            closer = float((y - candidate).norm()) < length * (1 - 0.1 * tau * optimality**2)
            flatter = optimality < 1e-5 and float(following.norm()) < 0.9 * float(tangential.norm())
            if f_new <= FAILED * f_y and (closer or flatter):
                break
            tau /= 2
        else:
            break
        t, f, tangential = candidate, f_new, following
        tau = min(2 * tau, 4.0)
    relative = f / f_y
    return Projection(
        t, float((y - t).norm()), relative, optimality, relative <= FAILED and optimality <= FAILED
    )
