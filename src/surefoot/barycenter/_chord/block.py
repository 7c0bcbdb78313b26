"""A block of inputs small enough for a processor's cache: what a move of B does to their X and N'.

The formulas stand in `couplings.py`. Views of the buffers are made once: at ten inputs of dimension 5 making
them anew at every product is a third of the time.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Inexact

BLOCK = 400_000
"""Bytes of a temporary: a few of them fit into a processor's cache."""
SLOW = 0.3
"""A chord step that takes off less than this needs a base that is nearer."""
CHORDS = 12
SETTLED = 1e-14
SMALL = 2e-3
"""Below this six terms of log(1 + e) are all that float64 holds."""

Matrix = Inexact[np.ndarray, "d d"]
Stack = Inexact[np.ndarray, "b d d"]


def adjoint(x: np.ndarray) -> np.ndarray:
    """The conjugate transpose of the last two dimensions; of real matrices a view."""
    turned: np.ndarray = x.swapaxes(-1, -2)
    return turned.conj() if x.dtype.kind == "c" else turned


def flat(x: Stack) -> Float[np.ndarray, "b e"]:
    """A row of real numbers a matrix, for sums over entries."""
    rows = x.reshape(len(x), -1)
    return rows if rows.dtype.kind == "f" else rows.view(np.float64)


def row_squares(rows: Float[np.ndarray, "b e"]) -> Float[np.ndarray, " b"]:
    """The squared norm of every row."""
    found: np.ndarray = np.einsum("ij,ij->i", rows, rows)
    return found


def diagonals(x: Stack) -> Any:
    """The diagonals (b, d), to be written to: of complex matrices the real part."""
    found = x.reshape(len(x), -1)[:, :: x.shape[-1] + 1]
    return found if found.dtype.kind == "f" else found.real


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
    small = row_squares(flat(E)) <= SMALL * SMALL
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


class Buffer(NamedTuple):
    """Matrices, and views of the memory in which they lie."""

    x: Stack
    diagonal: Any
    flat: Float[np.ndarray, "b e"]
    real: Float[np.ndarray, "b d d"]
    """As many real numbers, in the same memory."""

    @classmethod
    def of(cls, x: Stack) -> Buffer:
        """Views of contiguous matrices."""
        rows = flat(x)
        return cls(x, diagonals(x), rows, rows.reshape(-1)[: x.size].reshape(x.shape))


class Block:
    """Views of the inputs of one part; X and N' are theirs, W and E are shared with all other blocks."""

    def __init__(
        self, covs: Stack, Y: Stack, X: Stack, N: Stack, v: Float[np.ndarray, " b"], spare: list[Stack],
        tau: float,
    ) -> None:  # fmt: skip
        self.covs, self.Y, self.v, self.tau = covs, Y, v, tau
        self.tall = Y.reshape(-1, Y.shape[-1])
        self.X, self.N = Buffer.of(X), Buffer.of(N)
        self.spare = tuple(Buffer.of(x[: len(covs)]) for x in spare)
        self.tall_spare = tuple(buffer.x.reshape(self.tall.shape) for buffer in self.spare)
        self.s: Any = None
        self.c: Any = None
        self.k: Any = None
        self.logdet: Any = None

    def based(self, s: Any, c: Any, k: Any, logdet: Any) -> None:
        """Take the numbers of a new base."""
        self.s, self.c, self.k, self.logdet = s, c, k, logdet

    def slopes(self) -> Any:
        """q, at the diagonal n of the present N': with that of the base the rate is ten times worse."""
        n = self.N.diagonal
        if self.c is None:
            return np.sqrt(self.s * n)
        half = self.c * n / 2
        return np.sqrt(half * half + self.k * n)

    def residual(self) -> tuple[Buffer, Buffer]:
        """sym[(X - c) N' X] - k, and a spare buffer."""
        X, (W, E) = self.X, self.spare
        np.matmul(self.N.x, X.x, out=W.x)
        if self.c is None:
            np.matmul(X.x, W.x, out=E.x)
        else:
            here = X.diagonal
            here -= self.c
            np.matmul(X.x, W.x, out=E.x)
            here += self.c
            np.add(E.x, adjoint(E.x), out=W.x)
            np.multiply(W.x, 0.5, out=W.x)
            E, W = W, E
        here = E.diagonal
        here -= self.k
        return E, W

    def step(self, E: Buffer, W: Buffer, q: Any) -> None:
        """X - E_jl / (q_j + q_l); E becomes the step."""
        np.add(q[:, :, None], q[:, None, :], out=W.real)
        np.divide(E.x, W.real, out=E.x)
        np.subtract(self.X.x, E.x, out=self.X.x)

    def move(self, move: Matrix) -> Any:
        """N' at the new point, and the predictor of X there, which needs no product of its own."""
        W, E = self.spare
        np.matmul(self.tall, move, out=self.tall_spare[0])
        np.matmul(W.x, adjoint(self.Y), out=E.x)
        np.add(self.N.x, E.x, out=self.N.x)
        q = self.slopes()
        x = self.X.diagonal.copy()
        np.multiply(E.x, x[:, :, None], out=E.x)
        np.multiply(E.x, x[:, None, :], out=E.x)
        self.step(E, W, q)
        return q

    def settle(
        self, q: Any, goal: float, rate: float | None, least: float
    ) -> tuple[float, Any] | None:
        """Chord steps until X is good to goal: their rate and last squared sizes. None: too slow."""
        last = None
        for _ in range(CHORDS):
            E, W = self.residual()
            self.step(E, W, q)
            e = row_squares(E.flat)
            size = math.sqrt(e.max())
            if last is not None:
                rate = max(size / last if last else 0.0, least)
            last = size
            if rate is not None:
                if not rate <= SLOW:
                    return None
                if 2 * rate * size <= goal:
                    return rate, e
            elif size < SETTLED:
                return 1e-3, e
        return None

    def share(self, first: bool, p: Any) -> Any:
        """sum p Y^H X Y, X = I where `first`; p None: the sum alone."""
        Z = self.Y if first else np.matmul(self.X.x, self.Y, out=self.spare[0].x)
        if p is not None:
            Z = np.multiply(p[:, None, None], Z, out=self.spare[1].x)
        return adjoint(self.tall) @ Z.reshape(self.tall.shape)

    def values(self) -> None:
        """<X, N'> of every input, and its log-determinant at finite tau."""
        np.einsum("ij,ij->i", self.X.flat, self.N.flat, out=self.v)
        if self.c is not None:
            W = self.spare[0].x
            np.matmul(self.X.x, self.N.x, out=W)
            np.multiply(W, 2 / self.tau, out=W)
            self.logdet[:] = logdet_of_one_plus(W)

    def polish(self) -> tuple[Any, float]:
        """One chord step: the squared sizes of it, and the largest |k^-1/2 R k^-1/2|_F before it."""
        E, W = self.residual()
        r = 1 / np.sqrt(self.k)
        np.multiply(E.x, r[:, :, None], out=W.x)
        np.multiply(W.x, r[:, None, :], out=W.x)
        worst = math.sqrt(row_squares(W.flat).max())
        self.step(E, W, self.slopes())
        sizes = row_squares(E.flat)
        self.values()
        return sizes, worst
