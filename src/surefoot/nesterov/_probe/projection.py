"""The closest minimiser of a residual problem f = |r|^2 / 2: a point of M = {r = 0}."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from surefoot._numerics.arguments import checked
from surefoot._numerics.checks import check_number
from surefoot._numerics.curvature import lanczos

FAILED = 1e-6
Residual = Callable[[Float[Tensor, " P"]], Float[Tensor, " m"]]


@checked(nan=True)
@dataclass(frozen=True)
class Projection:
    """The point found, and how far to trust it.

    Attributes
    ----------
    point
        The candidate for pi(y), of y's shape.
    distance
        |y - point|.
    residual
        |r(point)| / |r(y)|: how far the point is from M.
    optimality
        |tangential part of y - point| / |y - point|: 0 at a stationary point of the distance.
    ok
        Both at most 1e-6 or, next to M, at the rounding of the point's coordinates; and curvature not
        negative. A projection that is not ok must not be used.
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
            candidate: Tensor = t - J.T @ torch.linalg.solve_ex(shifted, r)[0]
            r_new = residual(candidate)
            f_new = 0.5 * float(r_new @ r_new)
            if f_new < f:
                t, r, f, improved = candidate, r_new, f_new, True
                damping = max(damping / 30, 1e-15)
                break
            # Also after a singular system, whose solution is not finite and improves nothing.
            damping = max(damping * 10, 1e-12)
        if not improved:
            break
    return t, f


@dataclass(frozen=True)
class _Tangent:
    """M at a point t, seen from y: the slope and the Hessian of |t - y|^2 / 2 along M.

    The Hessian is that of the Lagrangian |t - y|^2 / 2 + <lambda, r(t)> on the tangent space,
    I + sum_i lambda_i Hess r_i. The normals come from singular vectors, as J may lack rank.
    """

    residual: Residual
    t: Float[Tensor, " P"]
    normals: Float[Tensor, "k P"]
    multipliers: Float[Tensor, " m"]
    descent: Float[Tensor, " P"]
    steepest: float

    @classmethod
    def at(cls, residual: Residual, t: Float[Tensor, " P"], y: Float[Tensor, " P"]) -> _Tangent:
        J = torch.func.jacrev(residual)(t)
        left, sizes, right = torch.linalg.svd(J, full_matrices=False)
        rank = int((sizes > max(J.shape) * torch.finfo(J.dtype).eps * sizes[0]).sum())
        normals, away = right[:rank], y - t
        inward = normals @ away
        return cls(
            residual,
            t,
            normals,
            left[:, :rank] @ (inward / sizes[:rank]),
            away - normals.T @ inward,
            float(sizes[0]),
        )

    @property
    def digit(self) -> float:
        """The last digits of a coordinate: as much of a tangential part means nothing."""
        return 8 * torch.finfo(self.t.dtype).eps * float(self.t.abs().max())

    @property
    def rounding(self) -> float:
        """|r|^2 / 2 of a point that lies on M up to these digits."""
        return 0.5 * (self.steepest * self.digit) ** 2

    def part(self, d: Float[Tensor, " P"]) -> Float[Tensor, " P"]:
        """The tangential part of d."""
        return d - self.normals.T @ (self.normals @ d)

    def hessian(self, v: Float[Tensor, " P"]) -> Float[Tensor, " P"]:
        """Hessian times v; 1 on the normal space, so that it is never the smallest by mistake."""
        along = self.part(v)

        def slope(u: Float[Tensor, " P"]) -> Tensor:
            gradient: Tensor = torch.func.grad(lambda w: self.multipliers @ self.residual(w))(u)
            return gradient @ along

        bent: Tensor = torch.func.grad(slope)(self.t)
        return v + self.part(bent)

    def newton(self, accuracy: float, iterations: int = 50) -> Float[Tensor, " P"]:
        """A direction of descent: conjugate gradients on Hessian p = descent, as far as it is convex.

        Source: Nocedal and Wright, Numerical Optimization, algorithm 7.1.
        """
        p, left = torch.zeros_like(self.descent), self.descent
        q, size = left, float(left @ left)
        goal = (accuracy**2) * size
        for _ in range(iterations):
            image = self.part(self.hessian(q))
            bend = float(q @ image)
            if not bend > 1e-8 * float(q @ q):
                return p if bool(p.any()) else self.descent
            step = size / bend
            p, left = p + step * q, left - step * image
            size, before = float(left @ left), size
            if size <= goal:
                break
            q = left + (size / before) * q
        return p

    def curvature(self) -> float:
        """Smallest eigenvalue of the Hessian along M, at most 1."""
        lowest, _ = lanczos(
            self.hessian,
            len(self.t),
            30,
            generator=torch.Generator().manual_seed(0),
            dtype=self.t.dtype,
            device=self.t.device,
        )
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

    Riemannian descent of |t - y|^2: t <- retract(t + tau p) with backtracking in tau, until the
    tangential part of y - t is below tol times |y - t|. The direction p is the tangential part,
    preconditioned by conjugate gradients on the Hessian: alone it stalls where the distance no longer
    resolves progress, at 1e-8 to 1e-6. The point is then off by about optimality * distance /
    curvature. An ok result is a local minimum of the distance; the start, best the end of a run that
    passed y, decides which.

    Raises
    ------
    ValueError
        More than `max_residuals` residuals, tol not positive, or a residual that is not finite at y
        or start.

    Notes
    -----
    In the setting of arXiv 2410.08395; the algorithm is ours. Newton on the Lagrange conditions from
    y diverges on networks and is not used.
    """
    check_number("tol", tol, above=0)
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
    here = _Tangent.at(residual, t, y)
    for _ in range(iterations):
        length, steep = float((y - here.t).norm()), float(here.descent.norm())
        optimality = steep / length if length > 0 else 0.0
        if optimality < tol:
            break
        p = here.newton(min(0.1, optimality))
        slope, tau = float(here.descent @ p), 1.0
        for _ in range(40):
            t, f_new = retract(residual, here.t + tau * p, target=target)
            if f_new <= max(FAILED**2 * f_y, here.rounding):
                there = _Tangent.at(residual, t, y)
                gain = 0.5 * (length**2 - float((y - t).norm()) ** 2)
                # Near the end the distance no longer resolves progress, the tangential part does.
                blind = tau * slope < length * max(1e-10 * length, here.digit)
                flatter = blind and float(there.descent.norm()) < 0.5 * steep
                if flatter or (not blind and gain >= 1e-2 * tau * slope):
                    break
                if blind and tau < 0.1:
                    # All that is left is rounding.
                    return _judged(here, y, f, f_y)
            tau /= 2
        else:
            break
        here, f = there, f_new
    return _judged(here, y, f, f_y)


def _judged(here: _Tangent, y: Float[Tensor, " P"], f: float, f_y: float) -> Projection:
    length = float((y - here.t).norm())
    optimality = float(here.descent.norm()) / length if length > 0 else 0.0
    off = (f / f_y) ** 0.5
    ok = (off <= FAILED or f <= here.rounding) and (
        optimality <= FAILED or float(here.descent.norm()) <= here.digit
    )
    curvature = here.curvature() if ok and length > 0 else 1.0
    return Projection(here.t, length, off, optimality, ok and curvature >= -FAILED, curvature)
