"""Semi-unbalanced transport between two Gaussians: value, derivatives, relaxed input, dual gap.

alpha = N(a, A) may deform at the price tau KL, beta = N(b, B) may not (arXiv 2410.08117; all closed
forms derived here, see `spectral.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from surefoot._numerics.arguments import checked
from surefoot._numerics.checks import check_choice
from surefoot._showing import showing
from surefoot.barycenter._solver.checks import (
    as_covariances,
    as_float64,
    as_tau,
    check_spectrum,
    dtype_of,
)
from surefoot.barycenter._solver.means import mean_cost, relaxed_mean
from surefoot.barycenter._spectral.closed_forms import Coupling, Inputs, spectrum
from surefoot.barycenter._spectral.ranks import inverse, ranked

MASSES = ("fixed", "free")


@showing
@checked(nan=True)
@dataclass(frozen=True)
class SuotResult:
    """What `suot_gaussian` found, in the caller's kind of array; float32 where A and B were."""

    value: Any
    """Upsilon, or tau (1 - exp(-Upsilon / tau)) where the mass is free; differentiable."""
    upsilon: Any
    """W2^2(xi, beta) + tau KL(xi || alpha) at its minimum, means included; differentiable."""
    sigma_x: Any
    """Covariance of the relaxed input xi."""
    mean_x: Any
    """Mean of the relaxed input; None where no means were given."""
    map: Any
    """S with y -> mean_x + S (y - b) the optimal map from beta to xi; None where B is singular."""
    mass: Any
    """Mass of the plan: 1, or exp(-Upsilon / tau)."""
    kl: Any
    """KL(xi || alpha)."""
    transport_cost: Any
    """W2^2(xi, beta)."""
    dual_gap: Any
    """Primal minus dual value of the covariance part at `map`; NaN where B is singular."""
    plan: Any = None
    """Joint covariance (2d, 2d) of (x, y) under the plan, on request."""


class _Upsilon(torch.autograd.Function):
    """Upsilon with the envelope theorem for its gradient: no eigenvector is differentiated."""

    @staticmethod
    def forward(ctx: Any, A: Tensor, B: Tensor, tau: Tensor, coupling: Coupling) -> Tensor:
        ctx.coupling = coupling
        ctx.shapes = (A.shape, B.shape, tau.shape)
        return coupling.upsilon.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        coupling: Coupling = ctx.coupling
        shape_a, shape_b, shape_tau = ctx.shapes
        need_a, need_b, need_tau, _ = ctx.needs_input_grad
        g = grad[..., None, None]
        d_a = d_b = d_tau = None
        if need_a:
            d_a = (g * gradient_a(coupling)).sum_to_size(shape_a)
        if need_b:
            d_b = (g * gradient_b(coupling)).sum_to_size(shape_b)
        if need_tau:
            d_tau = (grad * coupling.kl).sum_to_size(shape_tau)
        return d_a, d_b, d_tau, None


def gradient_b(coupling: Coupling) -> Float64[Tensor, "*p d d"]:
    """d Upsilon / d B = I - S (the relaxed input is frozen, by the envelope theorem).

    Raises ValueError where B (or A, as far as B sees it) is singular in a way that makes it infinite.
    """
    # r = 0 in a direction that A has means that B lacks it: g would be infinite there.
    rank_r, rank_a = (coupling.r > 0).sum(dim=-1), (coupling.inputs.w > 0).sum(dim=-1)
    if bool((rank_r < rank_a).any()):
        raise ValueError("the derivative in B is not finite where B is singular; add a ridge to B")
    eye = torch.eye(coupling.r.shape[-1], dtype=torch.float64, device=coupling.r.device)
    return eye - coupling.maps()


def gradient_a(coupling: Coupling) -> Float64[Tensor, "*p d d"]:
    """d Upsilon / d A = tau/2 (A^-1 - A^-1 Sigma_x A^-1), as (I - S^-1) Sigma_x A^-1.

    The second form keeps its digits for large tau, the first for small. Raises ValueError where A or
    B is singular.
    """
    inputs = coupling.inputs
    if bool(inputs.singular.any()):
        raise ValueError("the derivative in A is not finite where A is singular; add a ridge to A")
    if bool((coupling.r == 0).any()):
        raise ValueError("the derivative in A needs a B of full rank; add a ridge to B")
    w = inputs.w
    root = w.sqrt() if inputs.balanced else (w / (w + inputs.tau[..., None] / 2)).sqrt()
    X = inputs.function(1 / root) @ coupling.vectors
    eye = torch.eye(w.shape[-1], dtype=w.dtype, device=w.device)
    K = eye - (X / coupling.g[..., None, :]) @ X.mT
    if inputs.balanced:
        return K
    A_inverse = inputs.function(1 / w)
    sigma = coupling.relaxed()
    product = K @ sigma @ A_inverse
    direct = inputs.tau[..., None, None] / 2 * (A_inverse - A_inverse @ sigma @ A_inverse)
    return torch.where(coupling.heavy[..., None, None], (product + product.mT) / 2, direct)


@checked
def suot_gaussian(
    A: Any, B: Any, tau: Any, *, mean_a: Any = None, mean_b: Any = None, mass: str = "fixed",
    return_plan: bool = False,
) -> SuotResult:  # fmt: skip
    """Semi-unbalanced transport from N(mean_a, A), which may deform, to N(mean_b, B), which may not.

    Parameters
    ----------
    A, B
        Covariances (..., d, d), positive semidefinite; leading dimensions broadcast. NumPy arrays or
        tensors; the results are of the same kind, computed in float64 and returned in float32 where
        both A and B were (see `checks.py` for why).
    tau
        Price of deformation, in the unit of a variance: a number or a tensor that broadcasts against
        the leading dimensions; inf is plain optimal transport.
    mean_a, mean_b
        Means (..., d); one that is missing is 0 where the other is given.
    mass
        "fixed": the plan has mass 1. "free": its mass is optimised too.
    return_plan
        Also return the joint covariance of the plan.

    Raises
    ------
    ValueError
        For matrices that are not square, symmetric, finite and positive semidefinite, for a tau that
        is not positive, and in the backward pass where a singular matrix has no finite derivative.

    Warns
    -----
    UserWarning
        For float32 matrices with a condition number above 1e5.

    Source: arXiv 2410.08117 for the problem; closed forms derived here.
    """
    check_choice("mass", mass, MASSES)
    tensors = any(isinstance(x, Tensor) for x in (A, B, tau, mean_a, mean_b))
    a, b = as_covariances(A, "A"), as_covariances(B, "B")
    if a.shape[-1] != b.shape[-1]:
        raise ValueError(f"A and B must have the same size, got {a.shape[-1]} and {b.shape[-1]}")
    t = as_tau(tau)
    with torch.no_grad():
        w_b = spectrum(b)
        check_spectrum(w_b, "B")
        singular_b = bool((ranked(w_b.clamp(min=0)) == 0).any())
        coupling = Inputs.of(a.detach(), t.detach(), "A").couple(b.detach())
    upsilon = _Upsilon.apply(a, b, t, coupling)  # type: ignore[no-untyped-call]
    kl, cost = coupling.kl, coupling.transport_cost
    mean_x = None
    if mean_a is not None or mean_b is not None:
        m_a = _mean(mean_a, "mean_a", a)
        delta = _mean(mean_b, "mean_b", b) - m_a
        upsilon = upsilon + mean_cost(a, delta, t)
        with torch.no_grad():
            moved, transport, price = relaxed_mean(a, delta, t)
            mean_x, cost, kl = m_a + moved, cost + transport, kl + price
    value, plan_mass = upsilon, torch.ones_like(upsilon)
    if mass == "free":
        plan_mass = torch.exp(-upsilon / t)
        value = upsilon if bool(t.isinf().all()) else -t * torch.expm1(-upsilon / t)
    S = coupling.maps()
    sigma = coupling.relaxed()
    gap = torch.full_like(upsilon, torch.nan) if singular_b else _gap(coupling, b.detach(), S)
    plan = None
    if return_plan:
        cross = S @ b.detach()
        low = b.detach().expand_as(sigma)
        plan = torch.cat([torch.cat([sigma, cross], -1), torch.cat([cross.mT, low], -1)], -2)

    dtype = dtype_of(A, B)

    def out(x: Tensor | None) -> Any:
        if x is None or tensors:
            return x if x is None else x.to(dtype)
        array: np.ndarray = x.detach().to(dtype).numpy()
        return array[()]

    return SuotResult(
        out(value), out(upsilon), out(sigma), out(mean_x), None if singular_b else out(S),
        out(plan_mass.detach()), out(kl), out(cost), out(gap), out(plan),
    )  # fmt: skip


@checked
def suot_dual_gap(A: Any, B: Any, tau: Any, S: Any = None) -> Any:
    """Primal minus dual value of a symmetric positive definite map S from N(0, B), both singled out by S.

    Whatever S is, primal(S) >= Upsilon >= dual(S): a gap of rounding size proves that S is optimal.
    primal(S) = tr((S-I) B (S-I)) + tau KL(S B S || A) and
    dual(S) = tau/2 logdet(I + 2/tau A (I - S^-1)) + tr((I-S) B), feasible since [[S^-1, -I], [-I, S]]
    is positive semidefinite; -inf where the logdet does not exist. Derived here.

    Parameters
    ----------
    A, B, tau
        As in `suot_gaussian`.
    S
        A symmetric positive definite map (..., d, d); None is the closed form.

    Raises
    ------
    ValueError
        As `suot_gaussian` does.
    """
    tensors = any(isinstance(x, Tensor) for x in (A, B, tau, S))
    with torch.no_grad():
        a, b, t = as_covariances(A, "A"), as_covariances(B, "B"), as_tau(tau)
        inputs = Inputs.of(a, t, "A")
        coupling = inputs.couple(b)
        s = coupling.maps() if S is None else as_covariances(S, "S")
        gap = _gap(coupling, b, s)
    return gap if tensors else gap.numpy()[()]


def _gap(coupling: Coupling, b: Tensor, S: Tensor) -> Tensor:
    inputs, w, half = coupling.inputs, coupling.inputs.w, coupling.inputs.tau / 2
    eye = torch.eye(b.shape[-1], dtype=b.dtype, device=b.device)
    s, Q = torch.linalg.eigh(S)
    S_inverse = (Q * inverse(ranked(s.clamp(min=0)))[..., None, :]) @ Q.mT
    root = inputs.function(w.sqrt())
    duals = _trace((eye - S) @ b)
    # A^1/2 (I - S^-1) A^1/2, on the range of A, where a singular A lives.
    K = inputs.function(w) - root @ S_inverse @ root
    if inputs.balanced:
        # Whatever S is, xi must be alpha here: the primal value does not depend on S.
        return coupling.upsilon - _trace(K) - duals
    e = spectrum(K) / half[..., None]
    logdet = torch.log1p(e.clamp(min=-1)).sum(dim=-1)
    dual = half * logdet + duals
    cost = _trace((S - eye) @ b @ (S - eye))
    # A^+1/2 S B S A^+1/2, with unit eigenvalues outside the range of A.
    inv_root = inputs.function(inverse(w).sqrt())
    outside = inputs.function((w == 0).to(w.dtype))
    m = spectrum(inv_root @ S @ b @ S @ inv_root + outside)
    kl = (m - 1 - m.clamp(min=torch.finfo(m.dtype).tiny).log()).sum(dim=-1) / 2
    return cost + inputs.tau * kl - dual


def _trace(M: Tensor) -> Tensor:
    return M.diagonal(dim1=-2, dim2=-1).sum(dim=-1)


def _mean(mean: Any, name: str, cov: Tensor) -> Tensor:
    d = cov.shape[-1]
    if mean is None:
        return torch.zeros(d, dtype=torch.float64, device=cov.device)
    m = as_float64(mean, name)
    if m.ndim == 0 or m.shape[-1] != d:
        raise ValueError(f"{name} must have {d} entries, as the covariance, got {tuple(m.shape)}")
    return m
