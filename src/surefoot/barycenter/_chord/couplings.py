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
from jaxtyping import Float, Inexact

EPS = 2.0**-52
BLOCK = 400_000
"""Bytes of a temporary: a few of them fit into a processor's cache."""
THIN = 1e-10
"""Inputs with a smaller ratio of extreme eigenvalues in the coordinates are asked for their own rank."""
SINGULAR = 1e-14
"""A base with a smaller ratio of extreme eigenvalues is singular to rounding."""
SLOW = 0.3
"""A chord step that takes off less than this needs a base that is nearer."""
CHORDS = 12
SETTLED = 1e-14
SMALL = 2e-3
"""Below this six terms of log(1 + e) are all that float64 holds."""

Matrix = Inexact[np.ndarray, "d d"]
Stack = Inexact[np.ndarray, "b d d"]


class Unsuited(Exception):
    """Inputs, or a point, that are singular to rounding: for the path with the rank rule."""


def adjoint(x: np.ndarray) -> np.ndarray:
    """The conjugate transpose of the last two dimensions; of real matrices a view."""
    turned: np.ndarray = x.swapaxes(-1, -2)
    return turned.conj() if x.dtype.kind == "c" else turned


def hermitian_part(x: np.ndarray) -> np.ndarray:
    """(x + x^H)/2."""
    found: np.ndarray = (x + adjoint(x)) / 2
    return found


def dot(x: Any, y: Any) -> float:
    """Re tr(x^H y)."""
    return float(np.vdot(x, y).real)


def flat(x: Stack) -> Float[np.ndarray, "b e"]:
    """A row of real numbers a matrix, for sums over entries."""
    rows = x.reshape(len(x), -1)
    return rows if rows.dtype.kind == "f" else rows.view(np.float64)


def squares(x: Stack) -> Float[np.ndarray, " b"]:
    """The squared Frobenius norms."""
    rows = flat(x)
    found: np.ndarray = np.einsum("ij,ij->i", rows, rows)
    return found


def diagonals(x: Stack) -> Any:
    """The diagonals (b, d), to be written to: of complex matrices the real part."""
    found = x.reshape(len(x), -1)[:, :: x.shape[-1] + 1]
    return found if found.dtype.kind == "f" else found.real


def _real(x: Stack) -> Float[np.ndarray, "b d d"]:
    """A buffer of real numbers of the same shape in the memory of x."""
    if x.dtype.kind == "f":
        return x
    numbers: np.ndarray = x.reshape(-1).view(np.float64)[: x.size].reshape(x.shape)
    return numbers


def spectra(covs: Stack, parts: list[slice]) -> Float[np.ndarray, "n d"]:
    """The eigenvalues of every input, ascending."""
    found = [torch.linalg.eigvalsh(torch.from_numpy(covs[part])).numpy() for part in parts]
    return np.concatenate(found)


def parts_of(covs: Stack) -> list[slice]:
    """Blocks of inputs, as equal as can be."""
    n, d = len(covs), covs.shape[-1]
    most = max(1, BLOCK // (covs.itemsize * d * d))
    each = -(-n // -(-n // most))
    return [slice(i, min(i + each, n)) for i in range(0, n, each)]


def decomposed(x: Stack) -> tuple[Float[np.ndarray, "b d"], Stack]:
    """Eigenvalues, ascending, and eigenvectors as rows U^H."""
    w, v = torch.linalg.eigh(torch.from_numpy(x))
    return w.numpy(), v.mH.resolve_conj().numpy()


def logdet_of_one_plus(E: Stack) -> Float[np.ndarray, " b"]:
    """log det(I + E), E overwritten: by its series where E is small, where the digits would be lost."""
    small = squares(E) <= SMALL * SMALL
    found = np.empty(len(E))
    if small.any():
        e = E if small.all() else E[small]
        e2 = e @ e
        e3 = e2 @ e
        turned, turned2, turned3 = (adjoint(x) for x in (e, e2, e3))
        one, two, three, four, five, six = (
            np.einsum("ijk,ijk->i", a, b.conj()).real
            for a, b in (
                (e, np.broadcast_to(np.eye(e.shape[-1]), e.shape)), (e, turned), (e2, turned),
                (e2, turned2), (e2, turned3), (e3, turned3),
            )
        )  # fmt: skip
        found[small] = one - two / 2 + three / 3 - four / 4 + five / 5 - six / 6
    if not small.all():
        diagonals(E)[:] += 1
        found[~small] = np.linalg.slogdet(E if not small.any() else E[~small])[1]
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
        self.s = self._roots(m)
        self.c: np.ndarray | None = None if self.balanced else m / self.s
        self.k: np.ndarray = self.s if self.balanced else self.s - m
        self.rounding = self.d * EPS * float((m[:, -1] / self.s[:, 0]).max())
        self.X[:] = self.eye
        self.N[:] = 0
        diagonals(self.N)[:] = self.s
        self.bases += 1
        self.error, self.rate = 0.0, None
        self.v = self.s.sum(axis=1)
        if not self.balanced:
            self._logdet = np.log1p(2 * self.s / self.tau).sum(axis=1)
            if self.bases == 1:
                if self.spectra is None:
                    self.spectra = spectra(self.covs, self.parts)
                grown = np.log1p(2 * self.spectra.clip(0) / self.tau)
                self._constant = self.tau / 2 * grown.sum(axis=1)
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
        np.multiply(np.sqrt(self._roots(m))[:, :, None], rows, out=self.Y[part])

    def _roots(self, m: Any) -> Any:
        # Root by root: a product of two would underflow for variances below 1e-150.
        return np.sqrt(m) if self.balanced else (m + np.sqrt(m) * np.sqrt(m + 2 * self.tau)) / 2

    def _slopes(self, part: slice, n: Any) -> Any:
        """q, at the diagonal n of the present N': with that of the base the rate is ten times worse."""
        if self.c is None:
            return np.sqrt(self.s[part] * n)
        half = self.c[part] * n / 2
        return np.sqrt(half * half + self.k[part] * n)

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
        total = np.zeros_like(self.eye)
        for part in self.parts:
            total = total + self._share(part, first)
        return self._weighed(total)

    def _weighed(self, total: Matrix) -> Matrix:
        found: np.ndarray = total * self.weights[0] if self.equal else total
        return found

    def _share(self, part: slice, first: bool) -> Any:
        Y = self.Y[part]
        Z = Y if first else np.matmul(self.X[part], Y, out=self._spare[0][: len(Y)])
        if not self.equal:
            Z = np.multiply(self.p[part][:, None, None], Z, out=self._spare[1][: len(Y)])
        return adjoint(Y.reshape(-1, self.d)) @ Z.reshape(-1, self.d)

    def mean(self) -> Matrix:
        """The mean map at this point."""
        return self._mean()

    def _residual(self, part: slice) -> tuple[Stack, Stack]:
        """sym[(X - c) N' X] - k, and a spare buffer."""
        X, N = self.X[part], self.N[part]
        W, E = (x[: len(X)] for x in self._spare)
        np.matmul(N, X, out=W)
        if self.c is None:
            np.matmul(X, W, out=E)
        else:
            here = diagonals(X)
            here -= self.c[part]
            np.matmul(X, W, out=E)
            here += self.c[part]
            np.add(E, adjoint(E), out=W)
            W *= 0.5
            E, W = W, E
        diagonals(E)[:] -= self.k[part]
        return E, W

    def _step(self, part: slice, E: Stack, W: Stack, q: Any) -> None:
        E /= np.add(q[:, :, None], q[:, None, :], out=_real(W))
        self.X[part] -= E

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
        self._least = max(self.caution * far, 1e-3)
        total = np.zeros_like(self.eye)
        off, rates = 0.0, 0.0
        for part in self.parts:
            if move is None:
                q = self._slopes(part, diagonals(self.N[part]))
            else:
                q = self._move(part, move)
            found = self._settle(part, q, goal)
            if found is None:
                return None
            rate, e = found
            off += float(self.p[part] @ e) * (2 * rate) ** 2
            rates = max(rates, rate)
            self._values(part)
            if not self.free:
                total = total + self._share(part, False)
        self.rate, self.error, self._far = rates, math.sqrt(off), max(far, 1e-300)
        if self.free:
            return self._mean()
        return self._weighed(total)

    def _move(self, part: slice, move: Matrix) -> Any:
        """N' at the new point, and the predictor of X there, which needs no product of its own."""
        Y, X, N, d = self.Y[part], self.X[part], self.N[part], self.d
        W, E = (x[: len(Y)] for x in self._spare)
        np.matmul(Y.reshape(-1, d), move, out=W.reshape(-1, d))
        np.matmul(W, adjoint(Y), out=E)
        N += E
        q = self._slopes(part, diagonals(N))
        x = diagonals(X).copy()
        E *= x[:, :, None]
        E *= x[:, None, :]
        self._step(part, E, W, q)
        return q

    def _settle(self, part: slice, q: Any, goal: float) -> tuple[float, Any] | None:
        rate, last = self.rate, None
        for _ in range(CHORDS):
            E, W = self._residual(part)
            self._step(part, E, W, q)
            e = squares(E)
            size = math.sqrt(e.max())
            if last is not None:
                rate = max(size / last if last else 0.0, self._least)
            last = size
            if rate is not None:
                if not rate <= SLOW:
                    return None
                if 2 * rate * size <= goal * self.rootd:
                    return rate, e
            elif size < SETTLED:
                return 1e-3, e
        return None

    def _values(self, part: slice) -> None:
        X, N = self.X[part], self.N[part]
        self.v[part] = np.einsum("ij,ij->i", flat(X), flat(N))
        if not self.balanced:
            W = self._spare[0][: len(X)]
            np.matmul(X, N, out=W)
            W *= 2 / self.tau
            self._logdet[part] = logdet_of_one_plus(W)

    def polish(self) -> tuple[float, float]:
        """One chord step on every input: how far all were off, both numbers measured, no rate assumed.

        The first is the root mean square over inputs of |dX|_F, the error to first order. The second
        bounds |dS| <= bound S for every input: T = X - c/2 has T N' T = Q - R with the residual R and
        Q = c N' c/4 + k >= k, and the geometric mean Q # N'^-1 is monotone and of degree 1/2, so that
        |k^-1/2 R k^-1/2|_2 = r < 1 gives sqrt(1 - r) T* <= T <= sqrt(1 + r) T*.
        """
        worst, size = 0.0, 0.0
        for part in self.parts:
            E, W = self._residual(part)
            r = 1 / np.sqrt(self.k[part])
            np.multiply(E, r[:, :, None], out=W)
            W *= r[:, None, :]
            worst = max(worst, math.sqrt(squares(W).max()))
            self._step(part, E, W, self._slopes(part, diagonals(self.N[part])))
            size += float(self.p[part] @ squares(E))
            self._values(part)
        return math.sqrt(size), (1 / math.sqrt(1 - worst) - 1 if worst < 0.5 else math.inf)
