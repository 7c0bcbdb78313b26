"""The couplings of all inputs with one B, kept up to date by matrix products as B moves.

Coordinates: at a base B_0 = V diag(w) V^H (w descending) every B is L N L^H with L = V sqrt(w) and
N = I + D, and M = A at tau = inf, (A + tau/2)^-1 A else. One eigendecomposition an input,

    L^H M L = U diag(m) U^H,   s = sqrt(m), or (m + sqrt(m (m + 2 tau)))/2,   Y = diag(sqrt s) U^H,

and its optimal map is S = L^-H Y^H X Y L^-1 with X = I at the base. From (S - M) B S = tau/2 M, X is
elsewhere the root near I of

    sym[(X - c) N' X] = k,   N' = Y N Y^H,   c = m/s,   k = s - m   (tau = inf: c = 0, k = s),

found by chord steps X += (k - sym[(X - c) N' X])_jl / (q_j + q_l), q = sqrt(c^2 n^2/4 + k n), n = diag N'.
A relative error |dX|_2 <= e of every X moves S by at most e S, and G by at most e I: no condition number
enters. All of it derived here; `_spectral/closed_forms.py` says the same by an eigendecomposition a step.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from surefoot.barycenter._chord.block import (
    Block,
    Matrix,
    Stack,
    adjoint,
    decomposed,
    diagonals,
    parts_of,
)

EPS = 2.0**-52
THIN = 1e-10
"""Inputs with a smaller ratio of extreme eigenvalues in the coordinates are asked for their own rank."""
SINGULAR = 1e-14
"""A base with a smaller ratio of extreme eigenvalues is singular to rounding."""


class Unsuited(Exception):
    """Inputs, or a point, that are singular to rounding: for the path with the rank rule."""


def hermitian_part(x: np.ndarray) -> np.ndarray:
    """(x + x^H)/2."""
    found: np.ndarray = (x + adjoint(x)) / 2
    return found


def dot(x: Any, y: Any) -> float:
    """Re tr(x^H y)."""
    return float(np.vdot(x, y).real)


def spectra(covs: Stack, parts: list[slice]) -> Float[np.ndarray, "n d"]:
    """The eigenvalues of every input, ascending."""
    # A list of small results between the temporaries of blocks would leave holes in the memory: .7 of the
    # inputs' size at d = 100.
    found = np.empty(covs.shape[:2])
    for part in parts:
        found[part] = torch.linalg.eigvalsh(torch.from_numpy(covs[part])).numpy()
    return found


class Couplings:
    """All inputs at the point B = L N L^H; three buffers of the inputs' size and no more.

    Attributes
    ----------
    p
        The effective weights (n,): those given, times the optimal masses where the mass is free.
    trace
        tr B.
    error
        How far the mean map is off at most, relative, by the measured rate of the chord steps.
    rate
        The rate of the chord steps, None before it was measured.
    rounding
        How far rounding may move F beyond the usual, for inputs that are nearly singular.
    """

    def __init__(
        self, covs: Stack, weights: Float[np.ndarray, " n"], tau: float, temperature: float,
        *, symmetric: bool, spectra: Float[np.ndarray, "n d"] | None, cautious: bool = False,
    ) -> None:  # fmt: skip
        self.covs, self.weights, self.tau, self.temperature = covs, weights, tau, temperature
        self.balanced, self.free = math.isinf(tau), not math.isinf(temperature)
        self.symmetric, self.spectra = symmetric, spectra
        # A rate that was seen may be that of a lucky direction; in others it is up to |D|_F times .25 to .35
        # (900 runs). For the record of F that counts; all that is reported at the end is measured.
        self.caution = 0.25 if cautious else 0.0
        n, d = len(covs), covs.shape[-1]
        self.n, self.d, self.rootd = n, d, math.sqrt(d)
        self.parts = parts_of(covs)
        most = max(part.stop - part.start for part in self.parts)
        self.Y, self.X, self.N = (np.empty_like(covs) for _ in range(3))
        self.m, self.v = np.empty((n, d)), np.empty(n)
        self._spare = [np.empty((most, d, d), covs.dtype) for _ in range(2)]
        self.blocks = [
            Block(covs[a], self.Y[a], self.X[a], self.N[a], self.v[a], self._spare, tau)
            for a in self.parts
        ]
        self.traces = diagonals(covs).sum(axis=1)
        self.eye = np.eye(d, dtype=covs.dtype)
        self.equal = not self.free and bool((weights == weights[0]).all())
        self.p, self.trace, self.rounding = weights, 0.0, 0.0
        self.bases, self.sweeps = 0, 0
        self.error, self.rate, self._far = 0.0, None, 1e-300  # type: float, float | None, float

    def copy(self) -> Couplings:
        """The same inputs, nowhere yet."""
        return Couplings(
            self.covs, self.weights, self.tau, self.temperature, symmetric=self.symmetric,
            spectra=self.spectra,
        )  # fmt: skip

    def base(self, B: Matrix) -> Matrix:
        """Start anew at B, by an eigendecomposition of every input; the mean map L^H (sum p S) L.

        Raises Unsuited where B or an input is singular to rounding.
        """
        # LAPACK keeps the small eigenvalues of a graded matrix only where the large ones come first.
        w, V = np.linalg.eigh((B + adjoint(B)) / 2)
        w, V = w[::-1], V[:, ::-1]
        if not w[-1] > SINGULAR * w[0]:
            raise Unsuited
        root = np.sqrt(w)
        self.w, self.trace = np.ascontiguousarray(w), float(w.sum())
        self.total = self.trace
        self.L = V * root
        self.inverse = np.ascontiguousarray(adjoint(V / root))
        self.D = np.zeros_like(self.eye)
        for part in self.parts:
            self._decompose(part)
        m = self.m
        self.s = self.roots(m)
        self.c: np.ndarray | None = None if self.balanced else m / self.s
        self.k: np.ndarray = self.s if self.balanced else self.s - m
        self.rounding = self.d * EPS * float((m[:, -1] / self.s[:, 0]).max())
        self.X[:] = self.eye
        self.N[:] = 0
        diagonals(self.N)[:] = self.s
        self.bases += 1
        self.error, self.rate = 0.0, None
        self.s.sum(axis=1, out=self.v)
        if not self.balanced:
            self._logdet = np.log1p(2 * self.s / self.tau).sum(axis=1)
            if self.bases == 1:
                if self.spectra is None:
                    self.spectra = spectra(self.covs, self.parts)
                grown = np.log1p(2 * self.spectra.clip(0) / self.tau)
                self._constant = self.tau / 2 * grown.sum(axis=1)
        numbers = self.s, self.c, self.k, None if self.balanced else self._logdet
        for part, block in zip(self.parts, self.blocks, strict=True):
            block.based(*(None if x is None else x[part] for x in numbers))
        return self._mean(first=True)

    def _decompose(self, part: slice) -> None:
        A, d = self.covs[part], self.d
        if not self.balanced:
            # A solve, as 1 - tau/2 (A + tau/2)^-1 would cancel.
            A = np.linalg.solve(A + self.tau / 2 * self.eye, A)
        t, u = (x[: len(A)] for x in self._spare)
        np.matmul(A.reshape(-1, d), self.L, out=t.reshape(-1, d))
        np.matmul(adjoint(self.L), t, out=u)
        if not (self.balanced and self.symmetric):
            np.add(u, adjoint(u), out=t)
            t *= 0.5
            u = t
        m, rows = decomposed(u)
        thin = m[:, 0] <= THIN * m[:, -1]
        if thin.any():
            # The rank rule speaks of an input: L^H A L has the square of its condition number.
            own = np.linalg.eigvalsh(self.covs[part][thin])
            if not (m[:, 0] > 0).all() or (own[:, 0] <= d * EPS * own[:, -1]).any():
                raise Unsuited
        self.m[part] = m
        np.multiply(np.sqrt(self.roots(m))[:, :, None], rows, out=self.Y[part])

    def roots(self, m: Any) -> Any:
        """s of m."""
        # Root by root: a product of two would underflow for variances below 1e-150.
        return np.sqrt(m) if self.balanced else (m + np.sqrt(m) * np.sqrt(m + 2 * self.tau)) / 2

    def upsilon(self) -> Float[np.ndarray, " n"]:
        """The value of every input at this point."""
        if self.balanced:
            found: np.ndarray = self.trace + self.traces - 2 * self.v
        else:
            found = self.trace - self.v + self._constant - self.tau / 2 * self._logdet
        return found

    def objective(self) -> float:
        """F; with free mass L, its monotone transform."""
        u = self.upsilon()
        if not self.free:
            return float(self.weights @ u) / 2
        least = float(u[self.weights > 0].min())
        sizes = np.exp(
            -(u - least) / self.temperature, where=self.weights > 0, out=np.zeros_like(u)
        )
        return least / 2 - self.temperature / 2 * math.log(float(self.weights @ sizes))

    def _mean(self, first: bool = False) -> Matrix:
        if self.free:
            exponent = np.where(self.weights > 0, -self.upsilon() / self.temperature, -np.inf)
            self.p = self.weights * np.exp(exponent - exponent.max())
            self.p /= self.p.sum()
        shares = (
            block.share(first, self._weights_of(part))
            for part, block in zip(self.parts, self.blocks, strict=True)
        )
        return self._weighed(sum(shares))

    def _weights_of(self, part: slice) -> Any:
        # Equal weights are one factor of the sum.
        return None if self.equal else self.p[part]

    def _weighed(self, total: Any) -> Matrix:
        found: np.ndarray = total * self.weights[0] if self.equal else total
        return found

    def mean(self) -> Matrix:
        """The mean map at this point."""
        return self._mean()

    def at(self, D: Matrix, goal: float) -> Matrix | None:
        """Move to N = I + D, every S good to `goal` relative; the mean map. None: too far from the base."""
        move, self.D = D - self.D, D
        self.trace = float(self.w @ D.diagonal().real) + self.total
        return self._evaluate(move, goal)

    def refined(self, goal: float) -> Matrix | None:
        """`at` where it is, with S good to another `goal`."""
        return self._evaluate(None, goal)

    def _evaluate(self, move: Matrix | None, goal: float) -> Matrix | None:
        self.sweeps += 1
        far = math.sqrt(dot(self.D, self.D))
        if self.rate is not None:
            self.rate = max(self.rate * max(1.0, far / self._far), self.caution * far)
        least = max(self.caution * far, 1e-3)
        total: Any = 0
        off, rates = 0.0, 0.0
        for part, block in zip(self.parts, self.blocks, strict=True):
            q = block.slopes() if move is None else block.move(move)
            found = block.settle(q, goal * self.rootd, self.rate, least)
            if found is None:
                return None
            rate, e = found
            off += float(self.p[part] @ e) * (2 * rate) ** 2
            rates = max(rates, rate)
            block.values()
            if not self.free:
                total = total + block.share(False, self._weights_of(part))
        self.rate, self.error, self._far = rates, math.sqrt(off), max(far, 1e-300)
        if self.free:
            return self._mean()
        return self._weighed(total)

    def polish(self) -> tuple[float, float]:
        """One chord step on every input: how far all were off, both numbers measured, no rate assumed.

        The first is the root mean square over inputs of |dX|_F, the error to first order. The second
        bounds |dS| <= bound S for every input: T = X - c/2 has T N' T = Q - R with the residual R and
        Q = c N' c/4 + k >= k, and the geometric mean Q # N'^-1 is monotone and of degree 1/2, so that
        |k^-1/2 R k^-1/2|_2 = r < 1 gives sqrt(1 - r) T* <= T <= sqrt(1 + r) T*.
        """
        worst, size = 0.0, 0.0
        for part, block in zip(self.parts, self.blocks, strict=True):
            e, r = block.polish()
            worst, size = max(worst, r), size + float(self.p[part] @ e)
        return math.sqrt(size), (1 / math.sqrt(1 - worst) - 1 if worst < 0.5 else math.inf)
