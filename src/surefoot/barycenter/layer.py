"""The barycenter as a differentiable function of its inputs, without a graph through its iterations.

At the optimum Sbar(B; A, lam, tau) = I, so dB = H^-1 [dSbar] with H = D(I - Sbar). One solve
H[Z] = dL/dB gives every gradient as d<Z, Sbar> at fixed B; and as S = I - dUpsilon/dB, the derivatives of
S in A and tau are those of dUpsilon/dA and dUpsilon/dtau along Z. Derived here.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float64
from torch import Tensor

from surefoot._numerics.arguments import checked
from surefoot._numerics.checks import check_number
from surefoot.barycenter._solver.checks import as_covariances, as_float64
from surefoot.barycenter._solver.newton import curvature, solve_congruent
from surefoot.barycenter._spectral.closed_forms import Coupling, Inputs
from surefoot.barycenter._spectral.ranks import inverse
from surefoot.barycenter.barycenter import suot_barycenter

CG_TOL = 1e-13


def relaxed_along(coupling: Coupling, Z: Float64[Tensor, "b 1 d d"]) -> Float64[Tensor, "b n d d"]:
    """The derivative of Sigma_x in B along Z, by divided differences of f that do not cancel."""
    r, tau = coupling.r, coupling.inputs.tau[..., None]
    s = (r * (r + 2 * tau)).sqrt()
    pair_r = r[..., :, None] + r[..., None, :]
    slope = (1 + (pair_r + 2 * tau[..., None]) * inverse(s[..., :, None] + s[..., None, :])) / 2
    rows = coupling.rows
    return rows.mT @ (slope * (rows @ Z @ rows.mT)) @ rows


class _Barycenter(torch.autograd.Function):
    """B(A, lam, tau); what it keeps for the backward pass does not grow with the iterations."""

    @staticmethod
    def forward(
        ctx: Any, covs: Tensor, weights: Tensor, tau: Tensor, tol: float, max_iter: int
    ) -> Tensor:
        result = suot_barycenter(
            covs,
            weights=weights,
            tau=tau,
            tol=tol,
            max_iter=max_iter,
            optimality_gap=False,
            record=False,
        )
        B: Tensor = result.cov
        ctx.save_for_backward(covs, weights, tau, B)
        return B

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        covs, weights, tau, B = ctx.saved_tensors
        n, d = covs.shape[-3], covs.shape[-1]
        shape = covs.shape[:-3]
        A, lam = covs.reshape(-1, n, d, d), weights.reshape(-1, n)
        t = tau.expand(shape).reshape(-1)
        inputs = Inputs.of((A + A.mT) / 2, t[:, None])
        if bool(inputs.singular.any()):
            raise ValueError(
                "the gradient of the barycenter needs inputs of full rank; add a ridge"
            )
        base, V = B.reshape(-1, d, d), grad.reshape(-1, d, d)
        coupling = inputs.couple(base[:, None])
        Z = solve_congruent(coupling, lam, base, (V + V.mT) / 2, CG_TOL)[:, None]
        d_lam = (coupling.maps() * Z).sum(dim=(-2, -1))
        if inputs.balanced:
            S_inverse = torch.linalg.inv(coupling.maps())
            rows = coupling.rows
            bent = rows.mT @ (curvature(coupling) * (rows @ Z @ rows.mT)) @ rows
            d_A = S_inverse @ bent @ S_inverse
            d_tau = torch.zeros_like(t)
        else:
            moved = relaxed_along(coupling, Z)
            P = inputs.function(1 / inputs.w)
            d_A = t[:, None, None, None] / 2 * (P @ moved @ P)
            pull = P - torch.linalg.inv(coupling.relaxed())
            d_tau = -(lam * (pull * moved).sum(dim=(-2, -1))).sum(dim=-1) / 2
        d_A = lam[..., None, None] * (d_A + d_A.mT) / 2
        return (
            d_A.reshape(covs.shape), d_lam.reshape(weights.shape),
            d_tau.reshape(shape).sum_to_size(tau.shape), None, None,
        )  # fmt: skip


@checked
class SUOTBarycenterLayer(torch.nn.Module):
    """The semi-unbalanced barycenter of covariances as a layer; its gradient is implicit.

    Computed in float64, returned in the dtype of the input. Fixed mass only.

    Parameters
    ----------
    tau
        Price of deforming an input, positive; inf is the Wasserstein barycenter.
    learn_tau
        Make log tau a parameter, `log_tau`.
    tol, max_iter
        As in `suot_barycenter`; the gradient is as good as the convergence.
    """

    def __init__(
        self, tau: float = 1.0, learn_tau: bool = False, tol: float = 1e-10, max_iter: int = 1000
    ) -> None:
        super().__init__()
        tau = check_number("tau", tau, above=0, finite=learn_tau)
        log_tau = torch.tensor(tau, dtype=torch.float64).log()
        if learn_tau:
            self.log_tau = torch.nn.Parameter(log_tau)
        else:
            self.register_buffer("log_tau", log_tau)
        self.tol = check_number("tol", tol, least=0)
        self.max_iter = check_number("max_iter", max_iter, least=1, whole=True)

    @property
    def tau(self) -> Tensor:
        """The price, a scalar tensor."""
        return self.log_tau.exp()

    def forward(self, covs: Any, weights: Any = None) -> Tensor:
        """B (..., d, d) of covs (..., n, d, d) and unnormalised weights (..., n), equal by default."""
        A = as_covariances(covs, "covs")
        covs = covs if isinstance(covs, Tensor) else A
        w = A.new_ones(()) if weights is None else as_float64(weights, "weights")
        w = w.expand(A.shape[:-2])
        lam = w / w.sum(dim=-1, keepdim=True)
        tau = self.log_tau.to(torch.float64).exp()
        out: Tensor = _Barycenter.apply(A, lam, tau, self.tol, self.max_iter)  # type: ignore[no-untyped-call]
        # Whole numbers do not hold an average of them.
        return out.to(covs.dtype) if covs.is_floating_point() else out
