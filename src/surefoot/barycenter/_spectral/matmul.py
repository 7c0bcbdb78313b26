"""The closed forms of `spectral.py` from matrix products: no eigenvector, so a GPU is kept busy.

With N = R (R + 2 tau)^-1, whose eigenvalues lie in (0, 1) whatever the scale, r g(r) and g(r) are

    g(R) = (I + N^-1/2) / 2        h(R) = (R + (R + 2 tau) N^1/2) / 2        arccosh = 2 artanh(N^1/2)

and the coupled Newton-Schulz iteration gives both roots of N at once (at tau = inf, of R itself). One
inverse and one Cholesky factor a pair are the only factorisations. N is better conditioned than R, the
better the smaller tau is: 5 to 7 steps at tau = .01, 12 at tau = inf, for a condition number of 100.
Derived here; the iteration is the classical one.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float64
from torch import Tensor

from surefoot.barycenter._spectral.closed_forms import Evaluation, Inputs
from surefoot.barycenter._spectral.ranks import EPS

STEPS = 26
"""Enough for a condition number of 5e6, at which the roots are good to 1e-10."""
NEAR = 1e-8
SERIES = 0.02
TERMS = 9


def roots(
    M: Float64[Tensor, "*p d d"],
) -> tuple[Float64[Tensor, "*p d d"], Float64[Tensor, "*p d d"], Bool[Tensor, "*p"]]:
    """M^1/2, M^-1/2 of symmetric positive definite M, and which of them converged in `STEPS` steps.

    Coupled Newton-Schulz: T = (3 I - Z Y)/2, Y <- Y T, Z <- T Z from Y = M/s, Z = I, s >= ||M||. What
    is not positive definite, or has a condition number above some 5e6, does not converge.
    """
    eye = torch.eye(M.shape[-1], dtype=M.dtype, device=M.device)
    scale = torch.minimum(_bound(M), torch.linalg.matrix_norm(M))[..., None, None]
    scale = scale.clamp(min=torch.finfo(M.dtype).tiny)
    Y, Z = M / scale, eye.expand_as(M)
    for _ in range(STEPS):
        T = (Z @ Y).mul_(-0.5)
        T.diagonal(dim1=-2, dim2=-1).add_(0.5)
        there = torch.linalg.vector_norm(T, ord=torch.inf, dim=(-2, -1)) <= NEAR
        T.diagonal(dim1=-2, dim2=-1).add_(1)
        # The iteration is quadratic: after one more step the error is NEAR^2.
        Y, Z = Y @ T, T @ Z
        if bool(there.all()):
            break
    return Y * scale.sqrt(), Z / scale.sqrt(), there


def _bound(M: Float64[Tensor, "*p d d"]) -> Float64[Tensor, "*p"]:
    """The largest row sum, at least the spectral norm."""
    return M.abs().sum(dim=-1).amax(dim=-1)


def _trace(M: Tensor) -> Tensor:
    return M.diagonal(dim1=-2, dim2=-1).sum(dim=-1)


@dataclass(frozen=True)
class MatmulInputs(Inputs):
    """Inputs of full rank whose couplings are evaluated by Newton-Schulz; they are decomposed once."""

    def evaluate(self, B: Float64[Tensor, "... d d"]) -> Evaluation:
        """At B; by eigendecomposition, with a warning, where some pair is too badly conditioned."""
        R = self.root @ B @ self.root
        R = (R + R.mT) / 2
        trace = _trace(B)
        if self.balanced:
            Y, Z, there = roots(R)
            if bool(there.all()):
                return MatmulCoupling(self, R, Z, Y, Y, trace)
        else:
            eye = torch.eye(R.shape[-1], dtype=R.dtype, device=R.device)
            shifted = R + 2 * self.tau[..., None, None] * eye
            N = R @ torch.linalg.inv(shifted)
            Y, Z, there = roots((N + N.mT) / 2)
            if bool(there.all()):
                return MatmulCoupling(self, R, (eye + Z) / 2, (R + shifted @ Y) / 2, Y, trace)
        warnings.warn(
            "sqrt='newton-schulz' does not converge where a pair has a condition number above some "
            f"{5e6:g}: this point was computed by eigh; use sqrt='eigh', or add a ridge",
            UserWarning,
            stacklevel=2,
        )
        return self.couple(B, keep=False)


@dataclass(frozen=True)
class MatmulCoupling:
    """What a descent asks of a `Coupling`, without eigenvalues."""

    inputs: MatmulInputs
    R: Float64[Tensor, "*p d d"]
    g: Float64[Tensor, "*p d d"]
    """g(R)."""
    h: Float64[Tensor, "*p d d"]
    """R g(R)."""
    Y: Float64[Tensor, "*p d d"]
    """N^1/2, or R^1/2 at tau = inf."""
    trace: Float64[Tensor, "..."]

    @cached_property
    def upsilon(self) -> Float64[Tensor, "*p"]:
        """The value; tr artanh(Y) by its series where Y is small, where a logdet would lose digits."""
        inputs = self.inputs
        value: Tensor = self.trace + inputs.constant
        if inputs.balanced:
            return (value - 2 * _trace(self.h)).clamp(min=0)
        small = _bound(self.Y) ** 2 <= SERIES
        artanh = torch.zeros_like(_trace(self.Y))
        if bool(small.any()):
            term, Y2 = self.Y, self.Y @ self.Y
            for k in range(TERMS):
                artanh = artanh + _trace(term) / (2 * k + 1)
                term = term @ Y2
        if not bool(small.all()):
            eye = torch.eye(self.R.shape[-1], dtype=self.R.dtype, device=self.R.device)
            E = eye + (self.h + self.h.mT) / inputs.tau[..., None, None]
            factor = torch.linalg.cholesky(E)
            direct = factor.diagonal(dim1=-2, dim2=-1).log().sum(dim=-1)
            artanh = torch.where(small, artanh, direct)
        return (value - _trace(self.h) - inputs.tau * artanh).clamp(min=0)

    def maps(self) -> Float64[Tensor, "*p d d"]:
        """S."""
        C = self.inputs.root
        S = C @ self.g @ C
        return (S + S.mT) / 2

    def relaxed(self) -> Float64[Tensor, "*p d d"]:
        """Sigma_x."""
        C, inputs = self.inputs.root, self.inputs
        if inputs.balanced:
            return (C @ C).expand_as(self.R)
        out = C @ self.h @ C + inputs.tau[..., None, None] / 2 * (C @ C)
        return (out + out.mT) / 2

    def mean_map(self, weights: Float64[Tensor, "*b n"]) -> Float64[Tensor, "*b d d"]:
        """sum_i weights_i S_i over the last leading dimension."""
        C = self.inputs.root
        scaled = weights[..., None, None] * (self.g @ C)
        tall = (*C.shape[:-3], -1, C.shape[-1])
        product = C.reshape(tall).mT @ scaled.reshape(tall)
        return (product + product.mT) / 2

    @property
    def known(self) -> Bool[Tensor, "*p"]:
        """Always: what does not converge is left to eigh."""
        return torch.ones(self.R.shape[:-2], dtype=torch.bool, device=self.R.device)

    def rounding(self) -> Float64[Tensor, "*p"]:
        """As `Coupling.rounding`, with the row sum for the largest eigenvalue; nothing is taken for 0."""
        d = self.R.shape[-1]
        return d * EPS * _bound(self.R) * _trace(self.g)
