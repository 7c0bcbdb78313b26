"""Closed forms of semi-unbalanced transport between centred Gaussians, batched.

    Upsilon(A, B) = min over measures xi of W2^2(xi, N(0, B)) + tau KL(xi || N(0, A))

Notation: C = (A (A + tau/2 I)^-1)^1/2 and R = C B C = U diag(r) U^T. Everything else is a function
of r between C U and its transpose, so no matrix is inverted and singular A or B are no exception.
At tau = inf the same forms hold with C = A^1/2, where Upsilon is the squared Bures distance.
Derived here; the objective is that of arXiv 2410.08117. `reference.py` has the textbook formulas.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from surefoot.barycenter._solver.checks import check_spectrum
from surefoot.barycenter._spectral.pairs import Coordinates, decompose
from surefoot.barycenter._spectral.ranks import EPS, inverse, ranked

BLOCK = 4_000_000
"""Bytes of matrices that are decomposed at a time on a CPU, which walks them one by one anyhow."""


def blocks(x: Float64[Tensor, "*n d d"]) -> list[slice]:
    """Parts of the last leading dimension of a stack: temporaries of their size are small ones."""
    if x.ndim < 3 or x.device.type != "cpu":
        return [slice(None)]
    n = x.shape[-3]
    count = max(1, BLOCK * n // max(1, 8 * x.numel()))
    return [slice(i, min(i + count, n)) for i in range(0, n, count)]


def spectrum(M: Float64[Tensor, "... d d"]) -> Float64[Tensor, "... d"]:
    """Eigenvalues, ascending, of the symmetric part."""
    w: Tensor = torch.linalg.eigvalsh((M + M.mT) / 2)
    return w


@runtime_checkable
class Evaluation(Protocol):
    """What a descent asks of the couplings of the inputs with one B; see `Coupling`."""

    @property
    def upsilon(self) -> Float64[Tensor, "*p"]:
        """The value of each pair."""

    @property
    def trace(self) -> Float64[Tensor, "..."]:
        """tr B."""

    def maps(self) -> Float64[Tensor, "*p d d"]:
        """S of each pair."""

    def relaxed(self) -> Float64[Tensor, "*p d d"]:
        """Sigma_x of each pair."""

    def mean_map(self, weights: Float64[Tensor, "*b n"]) -> Float64[Tensor, "*b d d"]:
        """sum_i weights_i S_i."""

    def rounding(self) -> Float64[Tensor, "*p"]:
        """How far rounding may move each value."""

    @property
    def known(self) -> Bool[Tensor, "*p"]:
        """Whether S is that of the pair, and not of what rounding has left of it."""


@dataclass(frozen=True)
class Inputs:
    """The inputs A, decomposed once; `tau` broadcasts against their leading dimensions."""

    w: Float64[Tensor, "*n d"]
    vectors: Float64[Tensor, "*n d d"] | None
    root: Float64[Tensor, "... d d"]
    """C."""
    constant: Float64[Tensor, "..."]
    """tau/2 logdet(I + 2A/tau); tr A at tau = inf."""
    tau: Float64[Tensor, "..."]
    balanced: bool
    """tau = inf."""

    @classmethod
    def of(
        cls, covs: Float64[Tensor, "*n d d"], tau: Float64[Tensor, "..."], name: str = "covs",
        *, keep: bool = True,
    ) -> Inputs:  # fmt: skip
        """Decompose; raises ValueError for an input with a negative eigenvalue.

        Without `keep` the eigenvectors are forgotten, which saves a buffer of the inputs' size.
        """
        balanced = bool(tau.isinf().all())
        parts = blocks(covs) if not keep and tau.shape[-1:] == (1,) else []
        if len(parts) > 1:
            made = [cls.of(covs[..., part, :, :], tau, name, keep=False) for part in parts]
            root = torch.empty_like(covs)
            for part, one in zip(parts, made, strict=True):
                root[..., part, :, :] = one.root
            w = torch.cat([one.w for one in made], dim=-2)
            return cls(
                w, None, root, torch.cat([one.constant for one in made], dim=-1), tau, balanced
            )
        w, vectors = torch.linalg.eigh(covs)
        check_spectrum(w, name)
        w = ranked(w.clamp(min=0))
        if balanced:
            c, constant = w.sqrt(), w.sum(dim=-1)
        else:
            half = tau[..., None] / 2
            c = (w / (w + half)).sqrt()
            constant = half[..., 0] * torch.log1p(w / half).sum(dim=-1)
        root = (vectors * c[..., None, :]) @ vectors.mT
        return cls(w, vectors if keep else None, root, constant, tau, balanced)

    @property
    def singular(self) -> Bool[Tensor, "*n"]:
        """Which inputs lack full rank."""
        return (self.w == 0).any(dim=-1)

    @property
    def zeros(self) -> Int64[Tensor, "*n"]:
        """How many eigenvalues of each input are 0."""
        return (self.w == 0).sum(dim=-1)

    def couple(self, B: Float64[Tensor, "... d d"], *, keep: bool = True) -> Coupling:
        """All closed forms at B, one eigendecomposition a pair."""
        r, rows, U = decompose(self.root, B, Coordinates.of(B), self.zeros)
        trace = B.diagonal(dim1=-2, dim2=-1).sum(dim=-1)
        return Coupling(self, r, rows, U if keep else None, trace)

    def evaluate(self, B: Float64[Tensor, "... d d"]) -> Evaluation:
        """What a descent needs at B; `matmul.MatmulInputs` has another way to it."""
        parts = blocks(self.root)
        if len(parts) == 1 or B.shape[-3] != 1:
            return self.couple(B, keep=False)
        r, rows = torch.empty_like(self.w), torch.empty_like(self.root)
        coordinates = Coordinates.of(B)
        for part in parts:
            C = self.root[..., part, :, :]
            found = decompose(C, B, coordinates, self.zeros[..., part])
            r[..., part, :], rows[..., part, :, :] = found[:2]
        return Coupling(self, r, rows, None, B.diagonal(dim1=-2, dim2=-1).sum(dim=-1))

    def function(self, values: Float64[Tensor, "... d"]) -> Float64[Tensor, "... d d"]:
        """V diag(values) V^T in the eigenbasis of the inputs."""
        assert self.vectors is not None
        return (self.vectors * values[..., None, :]) @ self.vectors.mT


@dataclass(frozen=True)
class Coupling:
    """The optimal coupling of every input A with B, in the eigenbasis of R."""

    inputs: Inputs
    r: Float64[Tensor, "*p d"]
    rows: Float64[Tensor, "*p d d"]
    """U^T C."""
    U: Float64[Tensor, "*p d d"] | None
    trace: Float64[Tensor, "..."]
    """tr B."""

    @property
    def _tau(self) -> Tensor:
        return self.inputs.tau[..., None]

    @cached_property
    def h(self) -> Float64[Tensor, "*p d"]:
        """r g(r), the eigenvalues of B^1/2 S B^1/2; their sum is tr(S B)."""
        if self.inputs.balanced:
            return self.r.sqrt()
        # Root by root: a product of two would underflow for variances below 1e-150.
        return (self.r + self.r.sqrt() * (self.r + 2 * self._tau).sqrt()) / 2

    @cached_property
    def g(self) -> Float64[Tensor, "*p d"]:
        """S = C U diag(g) U^T C; g(0) := 0."""
        return self.h * inverse(self.r)

    @property
    def f(self) -> Float64[Tensor, "*p d"]:
        """Sigma_x = C U diag(f) U^T C."""
        if self.inputs.balanced:
            return torch.ones_like(self.r)
        return self.h + self._tau / 2

    @cached_property
    def upsilon(self) -> Float64[Tensor, "*p"]:
        """The value; absolute error about eps tr B for tau between 1e-6 and 1e8."""
        if self.inputs.balanced:
            value = self.trace + self.inputs.constant - 2 * self.h.sum(dim=-1)
        else:
            x = self.r / self._tau
            arccosh = torch.log1p(x + (x * (x + 2)).sqrt()).sum(dim=-1)
            value = self.trace - self.h.sum(dim=-1)
            value = value + self.inputs.constant - self.inputs.tau / 2 * arccosh
        return value.clamp(min=0)

    def maps(self) -> Float64[Tensor, "*p d d"]:
        """S, the linear optimal map from N(0, B) to the relaxed input."""
        return self.rows.mT @ (self.g[..., None] * self.rows)

    def relaxed(self) -> Float64[Tensor, "*p d d"]:
        """Sigma_x = S B S, the covariance of the relaxed input."""
        return self.rows.mT @ (self.f[..., None] * self.rows)

    def mean_map(self, weights: Float64[Tensor, "*b n"]) -> Float64[Tensor, "*b d d"]:
        """sum_i weights_i S_i over the last leading dimension, without forming any S_i."""
        tall = (*self.rows.shape[:-3], -1, self.rows.shape[-1])
        scales = (weights[..., None] * self.g)[..., None]
        total = self.rows.new_zeros(())
        for part in blocks(self.rows):
            rows = self.rows[..., part, :, :]
            scaled = scales[..., part, :, :] * rows
            total = total + rows.reshape(tall).mT @ scaled.reshape(tall)
        return (total + total.mT) / 2

    def rounding(self) -> Float64[Tensor, "*p"]:
        """How far rounding of r, d eps max(r), may move Upsilon: d Upsilon / d r = -g(r).

        Near-singular inputs have large g; an eigenvalue that the rank rule took for 0 counts as the root
        it may have had.
        """
        d = self.r.shape[-1]
        error = d * EPS * self.r.amax(dim=-1)
        tau, lost = self.inputs.tau, self._lost
        root = error.sqrt() if self.inputs.balanced else (error * (error + 2 * tau)).sqrt()
        return error * self.g.sum(dim=-1) + lost * root

    @cached_property
    def _lost(self) -> Int64[Tensor, "*p"]:
        zeros: Tensor = (self.r == 0).sum(dim=-1) - self.inputs.zeros
        return zeros.clamp(min=0)

    @property
    def known(self) -> Bool[Tensor, "*p"]:
        """Not so where B is singular to rounding in a direction of the input: S is without limit there."""
        return self._lost == 0

    @cached_property
    def _excess(self) -> Float64[Tensor, "*p d"]:
        """e > -1 with A Sigma_x^-1 similar to I + diag(e), through S^-1; zero where A is singular."""
        inputs, half = self.inputs, self._tau / 2
        D = inputs.function((inputs.w + half).sqrt()) @ self.vectors
        P = inputs.function((inputs.w > 0).to(inputs.w.dtype))
        A = inputs.function(inputs.w)
        K = P @ (A - (D * inverse(self.g)[..., None, :]) @ D.mT) @ P
        return spectrum(K) / half

    @cached_property
    def _ratio(self) -> Float64[Tensor, "*p d"]:
        """The spectrum of A^-1 Sigma_x; one where A is singular."""
        inputs = self.inputs
        inside = (inputs.w > 0).to(inputs.w.dtype)
        D = inputs.function(inside / (inputs.w + self._tau / 2).sqrt()) @ self.vectors
        return spectrum((D * self.f[..., None, :]) @ D.mT + inputs.function(1 - inside))

    @property
    def vectors(self) -> Tensor:
        """U, where `couple` kept it."""
        assert self.U is not None
        return self.U

    @property
    def heavy(self) -> Bool[Tensor, "..."]:
        """Where tau outweighs the input, so that Sigma_x is nearly A and only S^-1 has the digits."""
        return self.inputs.tau > self.inputs.w.amax(dim=-1)

    @property
    def kl(self) -> Float64[Tensor, "*p"]:
        """KL(Sigma_x || A), on the range of A; equals d Upsilon / d tau."""
        if self.inputs.balanced:
            return torch.zeros_like(self.upsilon)
        e, m = self._excess, self._ratio
        # log1p(e) - e/(1+e) cancels to e^2/2 for small e.
        series = e * e * (0.5 - e * (2 / 3 - 0.75 * e))
        through_map = torch.where(e.abs() < 1e-4, series, torch.log1p(e) - e / (1 + e))
        direct = m - 1 - m.log()
        total: Tensor = torch.where(self.heavy[..., None], through_map, direct).sum(dim=-1) / 2
        return total

    @property
    def transport_cost(self) -> Float64[Tensor, "*p"]:
        """W2^2(Sigma_x, B)."""
        if self.inputs.balanced:
            return self.upsilon
        return self.upsilon - self.inputs.tau * self.kl
