"""Newton's method with conjugate gradients on the convex F, for fixed mass.

Unknown E = B^1/2 Z B^1/2: the congruence is the preconditioner. Derived here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float64
from torch import Tensor

from surefoot.barycenter._solver.checks import lost
from surefoot.barycenter._solver.descent import Stepped
from surefoot.barycenter._solver.problem import Point, Problem
from surefoot.barycenter._spectral.closed_forms import Coupling
from surefoot.barycenter._spectral.ranks import inverse

CG_STEPS = 200


def curvature(coupling: Coupling) -> Float64[Tensor, "*p d d"]:
    """D with D(I - S)[E] = C U (D * (U^T C E C U)) U^T C, entrywise; positive, so F is convex.

    tau / (r_j r_k (h_j + h_k)), h = sqrt(1 + 2 tau / r); at tau = inf
    1 / (sqrt(r_j r_k) (sqrt(r_j) + sqrt(r_k))). Zero where r is.
    """
    r = coupling.r
    if coupling.inputs.balanced:
        root = r.sqrt()
        return inverse(_outer(root) * (root[..., :, None] + root[..., None, :]))
    tau = coupling.inputs.tau[..., None]
    # r h, which is 0 and not inf * 0 where r is.
    s = (r * (r + 2 * tau)).sqrt()
    return tau[..., None] * inverse(
        s[..., :, None] * r[..., None, :] + r[..., :, None] * s[..., None, :]
    )


def _outer(x: Tensor) -> Tensor:
    return x[..., :, None] * x[..., None, :]


def hessian_product(
    coupling: Coupling,
    D: Float64[Tensor, "b n d d"],
    weights: Float64[Tensor, "b n"],
    E: Float64[Tensor, "b d d"],
) -> Float64[Tensor, "b d d"]:
    """sum_i lam_i D(I - S_i)[E], twice the Hessian of F."""
    rows = coupling.rows
    inside = weights[..., None, None] * D * (rows @ E[:, None] @ rows.mT)
    out: Tensor = (rows.mT @ inside @ rows).sum(dim=1)
    return (out + out.mT) / 2


def solve_congruent(
    coupling: Coupling,
    weights: Float64[Tensor, "b n"],
    B: Float64[Tensor, "b d d"],
    V: Float64[Tensor, "b d d"],
    tol: float,
    steps: int = CG_STEPS,
) -> Float64[Tensor, "b d d"]:
    """E with sum lam_i D(I - S_i)[E] = V by conjugate gradients in Z, E = B^1/2 Z B^1/2."""
    w, Q = torch.linalg.eigh(B)
    root = (Q * w.clamp(min=0).sqrt()[..., None, :]) @ Q.mT
    D = curvature(coupling)

    def apply(Z: Tensor) -> Tensor:
        found: Tensor = root @ hessian_product(coupling, D, weights, root @ Z @ root) @ root
        return found

    def dot(X: Tensor, Y: Tensor) -> Tensor:
        return (X * Y).sum(dim=(-2, -1))[:, None, None]

    residual = root @ V @ root
    Z, P, rr = torch.zeros_like(B), residual, dot(residual, residual)
    goal = tol**2 * rr
    for _ in range(steps):
        if bool((rr <= goal).all()):
            break
        AP = apply(P)
        curve = dot(P, AP)
        # A problem of the batch that has arrived stands still.
        alpha = torch.where((rr > goal) & (curve > 0), rr / curve, torch.zeros_like(rr))
        Z, residual = Z + alpha * P, residual - alpha * AP
        new = dot(residual, residual)
        P, rr = residual + torch.where(rr > 0, new / rr, torch.zeros_like(rr)) * P, new
    E: Tensor = root @ Z @ root
    return E


@dataclass(frozen=True)
class Newton:
    """Newton-CG, Armijo on F, the step capped so that B stays positive.

    It ends where neither F nor the gradient falls any more.
    """

    descends: ClassVar[bool] = False
    geodesic: ClassVar[bool] = False
    batched: ClassVar[bool] = False

    def first_memory(self, problem: Problem, point: Point) -> None:
        """Nothing to remember; refuses free mass, whose objective is not convex."""
        if problem.free:
            raise ValueError('method="newton" needs mass="fixed": the free objective is not convex')

    def step(self, problem: Problem, point: Point, memory: None, fresh: bool) -> Stepped:
        """One Newton step; its own claim is that F does not rise."""
        coupling = problem.inputs.couple(point.B[:, None], keep=False)
        E = -solve_congruent(coupling, problem.weights, point.B, point.G, 1e-4)
        slope = (point.G * E).sum(dim=(-2, -1)) / 2
        lowest = float(_relative(E, point.B).min())
        t = min(1.0, 0.9 / max(-lowest, 1e-300))
        slack = 1e-15 * point.B.diagonal(dim1=-2, dim2=-1).sum(dim=-1)
        while True:
            B = point.B + t * E
            new = problem.at((B + B.mT) / 2, point.next_mean, point.temperature)
            if t < 1e-8 or bool((point.F + 1e-4 * t * slope + slack >= new.F).all()):
                break
            t /= 2
        # F is flat to rounding at residuals of about 1e-8, below which the gradient alone can improve.
        stalled = bool(((new.F >= point.F) & (new.residual >= point.residual)).all())
        return Stepped(new, torch.full_like(point.F, t), point.F, stalled=stalled)


def _relative(E: Tensor, B: Tensor) -> Tensor:
    """The spectrum of B^-1/2 E B^-1/2."""
    L, failed = torch.linalg.cholesky_ex(B)
    if bool((failed > 0).any()):
        raise lost("newton")
    half = torch.linalg.solve_triangular(L, E, upper=False)
    Z = torch.linalg.solve_triangular(L, half.mT, upper=False)
    w: Tensor = torch.linalg.eigvalsh((Z + Z.mT) / 2)
    return w
