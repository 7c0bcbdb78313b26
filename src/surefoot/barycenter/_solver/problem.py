"""The barycenter as a minimisation: what is known at a candidate (B, b), batched over problems.

    fixed mass  F = 1/2 sum_i lam_i Upsilon_i(B)
    free mass   L = -T/2 log sum_i lam_i exp(-Upsilon_i(B) / T)

L is a monotone transform of F_free = 1/2 sum lam_i T (1 - exp(-Upsilon_i / T)) that never
underflows; T is the mass temperature, tau in the paper. Both share the direction
G = I - sum_i p_i S_i with p_i = lam_i (fixed) or the softmax of log lam_i - Upsilon_i / T (free).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TypeVar

import torch
from jaxtyping import Float64
from torch import Tensor

from surefoot.barycenter._solver.means import weighted_mean, weighted_median
from surefoot.barycenter._spectral.closed_forms import Inputs
from surefoot.barycenter.bounds import ROUNDING

MEDIAN_STEPS = 10
T = TypeVar("T")


def take(x: T, index: Tensor) -> T:
    """The problems `index` of a batch: every tensor inside x is indexed in its first dimension."""
    if isinstance(x, Tensor):
        return x[index]  # type: ignore[return-value]
    if dataclasses.is_dataclass(x) and not isinstance(x, type):
        parts = {f.name: take(getattr(x, f.name), index) for f in dataclasses.fields(x)}
        return type(x)(**parts)
    return x


def put(x: T, index: Tensor, part: T) -> T:
    """x with the problems `index` replaced by those of `part`."""
    if isinstance(x, Tensor):
        return x.index_copy(0, index, part)  # type: ignore[arg-type, return-value]
    if dataclasses.is_dataclass(x) and not isinstance(x, type):
        names = [f.name for f in dataclasses.fields(x)]
        return type(x)(**{n: put(getattr(x, n), index, getattr(part, n)) for n in names})
    return x


@dataclass(frozen=True)
class Means:
    """The means a_i and their weight matrices W_i."""

    a: Float64[Tensor, "b n d"]
    W: Float64[Tensor, "b n d d"]


@dataclass(frozen=True)
class Point:
    """A candidate and what one evaluation says of it."""

    B: Float64[Tensor, "b d d"]
    mean: Float64[Tensor, "b D"] | None
    upsilon: Float64[Tensor, "b n"]
    """Means included."""
    temperature: Float64[Tensor, "b"]
    """Of the free mass; inf for fixed mass."""
    p: Float64[Tensor, "b n"]
    """The weights of this step."""
    F: Float64[Tensor, "b"]
    G: Float64[Tensor, "b d d"]
    grad2: Float64[Tensor, "b"]
    """||G||_B^2."""
    rounding: Float64[Tensor, "b"]
    """How far rounding may have moved F: 1e-12 (|F| + tr B), more where inputs are nearly singular."""
    next_mean: Float64[Tensor, "b D"] | None
    residual: Float64[Tensor, "b"]
    """||G||_B, and how far the mean still moves, over sqrt(tr B); inf where rounding has made B singular
    in a direction of an input, where G is not known."""


@dataclass(frozen=True)
class Problem:
    """A batch of barycenter problems; every tensor has the batch in front."""

    inputs: Inputs
    """tau has the shape (b, 1)."""
    weights: Float64[Tensor, "b n"]
    free: bool
    mass_tau: Float64[Tensor, "b"] | None
    """The temperature of the free mass; None: the median of Upsilon, frozen after ten steps."""
    means: Means | None

    @property
    def tau(self) -> Float64[Tensor, "b"]:
        """One tau a problem."""
        return self.inputs.tau[:, 0]

    def extremes(self) -> tuple[Float64[Tensor, "b"], Float64[Tensor, "b"]]:
        """alpha and beta: the extreme eigenvalues over the inputs of positive weight."""
        there, w = self.weights > 0, self.inputs.w
        low = torch.where(there, w[..., 0], torch.inf).amin(dim=-1)
        high = torch.where(there, w[..., -1], -torch.inf).amax(dim=-1)
        return low, high

    def objective(
        self, upsilon: Float64[Tensor, "b n"], temperature: Float64[Tensor, "b"]
    ) -> Float64[Tensor, "b"]:
        """F, or L at a temperature."""
        if not self.free:
            return (self.weights * upsilon).sum(dim=-1) / 2
        T = temperature[:, None]
        exponent = self.weights.log() - upsilon / T
        return -temperature / 2 * torch.logsumexp(exponent, dim=-1)

    def temperature(self, upsilon: Float64[Tensor, "b n"], scale: Tensor) -> Float64[Tensor, "b"]:
        """The temperature that belongs to these values; `scale` is tr B, for a floor above 0."""
        if not self.free:
            return torch.full_like(scale, torch.inf)
        if self.mass_tau is not None:
            return self.mass_tau
        return self.median(upsilon).clamp(min=1e-10 * scale)

    def median(self, upsilon: Float64[Tensor, "b n"]) -> Float64[Tensor, "b"]:
        """The median over the inputs, each as often as its weight says."""
        return weighted_median(upsilon, self.weights)

    def at(
        self,
        B: Float64[Tensor, "b d d"],
        mean: Float64[Tensor, "b D"] | None = None,
        temperature: Float64[Tensor, "b"] | None = None,
    ) -> Point:
        """Evaluate; one eigendecomposition an input."""
        coupling = self.inputs.evaluate(B[:, None])
        upsilon, scale = coupling.upsilon, coupling.trace[:, 0]
        if self.means is not None and mean is not None:
            delta = mean[:, None] - self.means.a
            upsilon = upsilon + (delta * (self.means.W @ delta[..., None])[..., 0]).sum(dim=-1)
        if temperature is None:
            temperature = self.temperature(upsilon, scale)
        p = self.weights
        if self.free:
            p = torch.softmax(p.log() - upsilon / temperature[:, None], dim=-1)
        G = torch.eye(B.shape[-1], dtype=B.dtype, device=B.device) - coupling.mean_map(p)
        grad2 = inner(G, G, B).clamp(min=0)
        next_mean, gap2 = mean, grad2
        if self.free and self.means is not None and mean is not None:
            next_mean = weighted_mean(self.means.W, self.means.a, p)
            gap2 = grad2 + ((next_mean - mean) ** 2).sum(dim=-1)
        F = self.objective(upsilon, temperature)
        lost = (~coupling.known & (p > 0)).any(dim=-1)
        residual = torch.where(lost, torch.inf, (gap2 / scale).sqrt())
        rounding = ROUNDING * (F.abs() + scale) + (p * coupling.rounding()).sum(dim=-1)
        return Point(B, mean, upsilon, temperature, p, F, G, grad2, rounding, next_mean, residual)


def inner(
    X: Float64[Tensor, "... d d"], Y: Float64[Tensor, "... d d"], B: Float64[Tensor, "... d d"]
) -> Float64[Tensor, "..."]:
    """<X, Y>_B = tr(X B Y), the inner product of two linear vector fields in L2(N(0, B))."""
    return ((X @ B) * Y).sum(dim=(-2, -1))


def moved(
    B: Float64[Tensor, "b d d"], G: Float64[Tensor, "b d d"], eta: Float64[Tensor, "b"]
) -> Float64[Tensor, "b d d"]:
    """(I - eta G) B (I - eta G), the Bures exponential; positive semidefinite for every eta."""
    M = torch.eye(B.shape[-1], dtype=B.dtype, device=B.device) - eta[:, None, None] * G
    out = M @ B @ M
    return (out + out.mT) / 2
