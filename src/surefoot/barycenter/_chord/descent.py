"""The descent on `Couplings`: steps (I - eta G) B (I - eta G) in the coordinates of the base.

With K = L^H (sum p S) L: L^H G L = diag(w) - K, Z = L^-1 G L = (L^H G L)/w, ||G||_B^2 = <Z N, L^H G L>,
tr B = <w, diag N>, and a step is N+ = (I - eta Z) N (I - eta Z)^H. The steps, and what is promised of
them, are those of `_solver/descent.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from surefoot.barycenter._chord.block import Matrix, adjoint
from surefoot.barycenter._chord.couplings import Couplings, dot, hermitian_part
from surefoot.barycenter._solver.descent import DECREASE, INSIDE, step_range
from surefoot.barycenter.bounds import ROUNDING, keep_promise

FAR = 0.5
"""A move of the spectral norm of N - I beyond this is left to a new base."""
POLISHES = 3
"""At one point; what is left then is rounding, which no step takes away."""


@dataclass(frozen=True)
class Spot:
    """A point of the path. The arrays are new at every step: keeping them is no copy."""

    F: float
    grad2: float
    """||G||_B^2."""
    residual: float
    """||G||_B / sqrt(tr B)."""
    eta: float
    """That led here; NaN at the start."""
    error: float
    trace: float
    rounding: float
    """How far rounding, and the error of the maps, may have moved F."""
    L: Matrix
    inverse: Matrix
    N: Matrix
    Gt: Matrix
    """L^H G L."""

    @property
    def B(self) -> Matrix:
        """The point itself."""
        return hermitian_part(self.L @ self.N @ adjoint(self.L))

    @property
    def G(self) -> Matrix:
        """I - sum p S."""
        return hermitian_part(adjoint(self.inverse) @ self.Gt @ self.inverse)


@dataclass(frozen=True)
class End:
    """Where a descent ended; `couplings` stand at that point."""

    couplings: Couplings
    spot: Spot
    steps: int
    converged: bool
    bound: float
    """By how much of itself any S may be off, proved."""


@dataclass(frozen=True)
class Steps:
    """How far to step: eta = 1 of the theory, another constant, or None for Barzilai-Borwein."""

    eta: float | None
    balanced: bool

    def first(self, k: int, secant: tuple[Any, ...] | None, Gt: Matrix, w: Any) -> float:
        """The step that is tried at step k."""
        if self.eta is not None:
            return self.eta
        if secant is None:
            return 1.0
        eta, grad2, Go, ZNo, No = secant
        y = Gt - Go
        sy, yy = -eta * dot(ZNo, y), dot((y / w[:, None]) @ No, y)
        if not (sy > 0 and yy > 0):
            return 1.0
        low, high = step_range(self.balanced)
        return float(min(max(eta * eta * grad2 / sy if k % 2 else sy / yy, low), high))


def descend(
    couplings: Couplings, B: Matrix, steps: Steps, *, tol: float, max_iter: int,
    goal: Callable[[float], float], path: list[tuple[int, Spot]] | None,
) -> End:  # fmt: skip
    """Step from B until the residual, and the error of it, are at most tol.

    Raises Unsuited where a point is singular to rounding, GuaranteeViolation where a step ends above its own
    ceiling by more than rounding. `goal`: how far the maps may be off after a step from a residual; `path`
    collects every point with its k.
    """
    at, eye = couplings, couplings.eye
    K = at.base(B)
    N, F, k, eta = eye, at.objective(), 0, math.nan
    secant: tuple[Any, ...] | None = None
    polished = 0
    while True:
        Gt = -K
        Gt.reshape(-1)[:: at.d + 1] += at.w
        Z = Gt / at.w[:, None]
        ZN = Z @ N
        grad2 = max(dot(ZN, Gt), 0.0)
        residual, error = math.sqrt(grad2 / at.trace), at.error
        arrived = residual + error <= tol
        if arrived or k >= max_iter:
            size, bound = at.polish() if at.sweeps else (0.0, 0.0)
            if 2 * (at.rate or 0.0) * size > ROUNDING:
                at.polish()
            F, polished = at.objective(), polished + 1
            if residual + size <= tol or k >= max_iter or polished == POLISHES:
                spot = _spot(at, F, grad2, residual + size, eta, size, N, Gt)
                if path is not None:
                    path.append((k, spot))
                return End(at, spot, k, residual + size <= tol, bound)
            # The error was underestimated: go on from the polished point.
            at.error = size * min(1.0, 2 * (at.rate or 1.0))
            K = at.mean()
            continue
        if residual <= tol or error > 0.3 * at.rootd * max(residual, tol):
            refined = at.refined(0.02 * max(residual, tol))
            if refined is None:
                refined, _, _ = _rebased(at, N)
                N, secant = eye, None
            K, F = refined, at.objective()
            continue
        if path is not None:
            path.append((k, _spot(at, F, grad2, residual, eta, error, N, Gt)))
        eta = steps.first(k, secant, Gt, at.w)
        if steps.eta is None and eta > 1 and eta * math.sqrt(dot(Z, Z)) > 0.999:
            steepest = np.linalg.eigvalsh(adjoint(at.inverse) @ Gt @ at.inverse)[-1]
            while eta > 1 and 1 - eta * steepest <= INSIDE:
                eta = max(eta / 2, 1.0)
        trace, rounding, back = at.trace, _rounding(at, F), (at.L, N)
        while True:
            N1 = moved_by(N, Z, eta)
            D1 = N1 - eye
            far = math.sqrt(dot(D1, D1))
            if far > FAR:
                far = float(np.abs(np.linalg.eigvalsh(D1)).max())
            moved = None
            if far <= FAR:
                moved = at.at(D1, goal(residual))
            if moved is None:
                moved, C, Ci = _rebased(at, N1)
                N1 = eye
                Gt = adjoint(C) @ Gt @ C
                Z = Gt / at.w[:, None]
                N = Ci @ N @ adjoint(Ci)
                ZN = Z @ N
            reached = at.objective()
            slack = 1e-15 * trace + (error + at.error) * trace
            if steps.eta is None and eta > 1 and reached > F - DECREASE * eta * grad2 + slack:
                eta = max(eta / 2, 1.0)
                continue
            break
        ceiling = F - (eta - eta * eta / 2) * grad2
        slack = rounding + _rounding(at, reached)
        if not reached - ceiling <= slack:
            # The errors of the maps were measured, not proved: both ends once more, to rounding.
            before = anew(at, *back)
            reached, slack = anew(at, at.L, N1)
            keep_promise(reached, ceiling + before[0] - F, before[1] + slack, k + 1)
        secant = (eta, grad2, Gt, ZN, N)
        N, K, F = N1, moved, reached
        k, polished = k + 1, 0


def anew(at: Couplings, L: Matrix, N: Matrix) -> tuple[float, float]:
    """F at L N L^H by an eigendecomposition of every input, and its rounding."""
    fresh = at.copy()
    fresh.base(L @ N @ adjoint(L))
    return fresh.objective(), _rounding(fresh, fresh.objective())


def moved_by(N: Matrix, Z: Matrix, eta: float) -> Matrix:
    """(I - eta Z) N (I - eta Z)^H, the Bures exponential in the coordinates of the base."""
    T = -eta * Z
    T.reshape(-1)[:: len(T) + 1] += 1
    return hermitian_part(T @ N @ adjoint(T))


def _rounding(at: Couplings, F: float) -> float:
    return ROUNDING * (abs(F) + at.trace) + at.error * at.trace + at.rounding


def _spot(
    at: Couplings, F: float, grad2: float, residual: float, eta: float, error: float,
    N: Matrix, Gt: Matrix,
) -> Spot:  # fmt: skip
    rounding = ROUNDING * (abs(F) + at.trace) + error * at.trace + at.rounding
    return Spot(F, grad2, residual, eta, error, at.trace, rounding, at.L, at.inverse, N, Gt)


def _rebased(at: Couplings, N: Matrix) -> tuple[Matrix, Matrix, Matrix]:
    """A base at N: the mean map there, L_0^-1 L_1 and its inverse."""
    L, inverse = at.L, at.inverse
    K = at.base(L @ N @ adjoint(L))
    return K, inverse @ at.L, at.inverse @ L
