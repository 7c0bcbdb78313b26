"""The closest minimiser of a residual problem f = |r|^2 / 2: a point of M = {r = 0}."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from surefoot.nesterov.lanczos import lanczos

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
        |r(point)| / |r(y)|: how far the point is from M.
    optimality
        |tangential part of y - point| / |y - point|: 0 at a stationary point of the distance.
    ok
        Both at most 1e-6, and curvature not negative. A projection that is not ok must not be used.
    curvature
        Smallest eigenvalue of the Hessian of |t - y|^2 / 2 along M, at most 1: 1 where M is flat,
        0 at its centre of curvature; negative where a closer point of M is near by.
    """

    point: Float[Tensor, " P"]
    distance: float
    residual: float
    optimality: float
    ok: bool
    curvature: float


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
            shifted = gram + damping * scale * torch.eye(len(gram)).to(gram)
            candidate: Tensor = t - J.T @ torch.linalg.solve(shifted, r)
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


@dataclass(frozen=True)
class _Frame:
    """The normal space of M at a point, from the singular vectors of J, which may lack rank."""

    left: Float[Tensor, "m k"]
    sizes: Float[Tensor, " k"]
    normals: Float[Tensor, "k P"]

    @classmethod
    def at(cls, residual: Residual, t: Float[Tensor, " P"]) -> _Frame:
        J = torch.func.jacrev(residual)(t)
        U, sizes, Vh = torch.linalg.svd(J, full_matrices=False)
        rank = int((sizes > max(J.shape) * torch.finfo(J.dtype).eps * sizes[0]).sum())
        return cls(U[:, :rank], sizes[:rank], Vh[:rank])

    def tangential(self, d: Float[Tensor, " P"]) -> Float[Tensor, " P"]:
        return d - self.normals.T @ (self.normals @ d)

    def multipliers(self, d: Float[Tensor, " P"]) -> Float[Tensor, " m"]:
        """The smallest lambda with J^T lambda = the normal part of d."""
        return self.left @ ((self.normals @ d) / self.sizes)


def _curvature_of_distance(
    residual: Residual, t: Float[Tensor, " P"], y: Float[Tensor, " P"]
) -> float:
    """Smallest eigenvalue on the tangent space of I + sum_i lambda_i Hess r_i, at most 1.

    This is the Hessian of the Lagrangian |t - y|^2/2 + <lambda, r(t)>: a stationary point where it
    has a negative direction is a saddle or a farthest point, not a projection.
    """
    frame = _Frame.at(residual, t)
    weights = frame.multipliers(y - t)

    def product(v: Float[Tensor, " P"]) -> Float[Tensor, " P"]:
        along = frame.tangential(v)

        def slope(s: Float[Tensor, " P"]) -> Tensor:
            gradient: Tensor = torch.func.grad(lambda u: weights @ residual(u))(s)
            return gradient @ along

        bent: Tensor = torch.func.grad(slope)(t)
        # Eigenvalue 1 on the normal space, so that it never is the smallest one by mistake.
        return v + frame.tangential(bent)

    lowest, _ = lanczos(
        product, len(t), 30, generator=torch.Generator().manual_seed(0), dtype=t.dtype,
        device=t.device,
    )  # fmt: skip
    return min(1.0, lowest.value)


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
    backtracking in tau, until the tangential part is below tol times |y - t|. An ok result is a local
    minimum of the distance; the start, best the end of a run that passed y, decides which.

    Raises
    ------
    ValueError
        More than `max_residuals` residuals, tol not positive, y and start of different shapes, or a
        residual that is not finite at y or start.

    Notes
    -----
    In the setting of arXiv 2410.08395; the algorithm is ours. Newton on the Lagrange conditions from
    y diverges on networks and is not used.
    """
    if not tol > 0:
        raise ValueError(f"tol must be > 0, got {tol}")
    if y.dim() != 1 or y.shape != start.shape:
        raise ValueError(
            f"y and start must be flat and of one size, got shapes {tuple(y.shape)} and "
            f"{tuple(start.shape)}"
        )
    r = residual(y)
    if len(r) > max_residuals:
        raise ValueError(
            f"projection handles at most max_residuals = {max_residuals} residuals, got {len(r)}; use "
            'the ledger with anchor="final", which needs no projection'
        )
    f_y = 0.5 * float(r @ r)
    if not bool(r.isfinite().all() and residual(start).isfinite().all()):
        raise ValueError("the residual must be finite at y and at start, got NaN or infinity")
    if f_y == 0:
        return Projection(y.clone(), 0.0, 0.0, 0.0, True, 1.0)
    target = 1e-26 * f_y
    t, f = retract(residual, start, target=target)
    tau, optimality = 1.0, float("inf")
    tangential = _Frame.at(residual, t).tangential(y - t)
    for _ in range(iterations):
        length = float((y - t).norm())
        optimality = float(tangential.norm()) / length if length > 0 else 0.0
        if optimality < tol:
            break
        for _ in range(40):
            candidate, f_new = retract(residual, t + tau * tangential, target=target)
            following = _Frame.at(residual, candidate).tangential(y - candidate)
            # Near the end the distance no longer resolves progress, the tangential part does.
            closer = float((y - candidate).norm()) < length * (1 - 0.1 * tau * optimality**2)
            flatter = optimality < 1e-5 and float(following.norm()) < 0.9 * float(tangential.norm())
            if f_new <= FAILED**2 * f_y and (closer or flatter):
                break
            tau /= 2
        else:
            break
        t, f, tangential = candidate, f_new, following
        tau = min(2 * tau, 4.0)
    length = float((y - t).norm())
    off = (f / f_y) ** 0.5
    ok = off <= FAILED and optimality <= FAILED
    curvature = _curvature_of_distance(residual, t, y) if ok and length > 0 else 1.0
    return Projection(t, length, off, optimality, ok and curvature >= -FAILED, curvature)
