"""What is promised of the descent, as plain functions of numbers (all derived here).

F = 1/2 sum lam_i Upsilon_i (free mass: the L of `problem.py`), G = I - sum lam_i S_i,
||G||_B^2 = tr(G B G), and alpha I <= A_i <= beta I for the inputs of positive weight.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Float64
from scipy.optimize import brentq
from torch import Tensor

from surefoot._numerics.checks import check_number
from surefoot.errors import SurefootError

ROUNDING = 1e-12


class GuaranteeViolation(SurefootError, ArithmeticError):
    """A proven inequality failed beyond rounding: a defect of this library, or of the hardware."""


def descent_bound(F: float, grad_norm2: float, eta: float) -> float:
    """G1: F(B+) <= F(B) - (eta - eta^2/2) ||G||_B^2 for B+ = (I - eta G) B (I - eta G), any real eta.

    Proof: move y to y - eta G y inside the optimal couplings and leave the relaxed inputs alone. No
    condition on spectra or dimension, singular inputs and tau = inf included.

    Parameters
    ----------
    F
        The objective before the step, in the unit of a variance.
    grad_norm2
        ||G||_B^2 there.
    eta
        The step.
    """
    return F - (eta - eta * eta / 2) * grad_norm2


def stationarity_bound(F0: float, Flow: float, K: int) -> float:
    """G2: min over the first K unit steps of ||G||_B^2 <= 2 (F0 - Flow) / K.

    Parameters
    ----------
    F0
        The objective at the start.
    Flow
        Anything that it never falls below; 0 is always valid.
    K
        The number of steps, at least 1.

    Raises
    ------
    ValueError
        K is less than 1.
    """
    check_number("K", K, least=1)
    return 2 * (F0 - Flow) / K


def contraction(x: float, tau: float) -> float:
    """The largest eigenvalue x / (x + tau/2) of C^2 for an eigenvalue x of an input."""
    return 1.0 if math.isinf(tau) else x / (x + tau / 2)


def map_floor(b: float, alpha: float, tau: float) -> float:
    """phi(b): S_i >= phi(b) I wherever B <= b I; the smallest stretch of the optimal maps."""
    if math.isinf(tau):
        return math.sqrt(alpha / b)
    c = contraction(alpha, tau)
    return (c + math.sqrt(c * c + 2 * tau * c / b)) / 2


def spectral_confinement(alpha: float, beta: float, tau: float) -> tuple[float, float]:
    """G3: (floor, beta): all iterates of steps eta <= 1 from [alpha I, beta I] stay in [floor I, beta I].

    The floor is the root a in (0, alpha] of 4 phi(a)^3 phi(beta) = (phi(a) + phi(beta))^2, by
    Kantorovich's inequality. alpha itself is not a floor of the iterates (only of the optimum).

    Parameters
    ----------
    alpha, beta
        The extreme eigenvalues over all inputs, 0 < alpha <= beta.
    tau
        Price of deforming an input, positive; may be inf.

    Raises
    ------
    ValueError
        alpha and beta are not in that order.
    """
    _check_range(alpha, beta)
    if alpha == beta:
        return alpha, beta
    low = map_floor(beta, alpha, tau)

    def excess(log_a: float) -> float:
        high = map_floor(math.exp(log_a), alpha, tau)
        return float(4 * high**3 * low - (high + low) ** 2)

    # At a = alpha, phi = 1 and the left side is the smaller one; it grows without limit as a -> 0.
    top = math.log(alpha)
    bottom = top
    while excess(bottom) < 0:
        bottom -= 1.0
    root = float(brentq(excess, bottom, top, xtol=1e-14)) if bottom < top else top
    return math.exp(root), beta


def strong_convexity(alpha: float, beta: float, tau: float, largest: float | None = None) -> float:
    """mu: F is mu-strongly convex in B (Euclidean) where B <= `largest` I, beta by default.

    mu = tau c_lo^2 / (4 R sqrt(R^2 + 2 tau R)), R = c_hi largest; alpha^2/(4 beta^3) at tau = inf.
    """
    b = beta if largest is None else max(beta, largest)
    if math.isinf(tau):
        # C = A^1/2, so ||C||^2 = alpha below and r <= beta b above.
        return alpha / beta * (alpha / b) / (4 * math.sqrt(beta) * math.sqrt(b))
    R = contraction(beta, tau) * b
    # Factor by factor, in any unit: the product of two variances may underflow.
    return tau / (4 * R) * contraction(alpha, tau) ** 2 / (math.sqrt(R) * math.sqrt(R + 2 * tau))


def linear_rate(alpha: float, beta: float, tau: float, floor: float | None = None) -> float:
    """G4: rho with F(B_k) - F* <= (1-rho)^k (F(B_0) - F*) for unit steps: rho = 4 floor mu.

    Parameters
    ----------
    alpha, beta
        The extreme eigenvalues over all inputs, 0 < alpha <= beta.
    tau
        Price of deforming an input, positive; may be inf.
    floor
        Bounds the eigenvalues of the iterates from below: None is the a priori one of
        `spectral_confinement`; min(alpha, smallest one measured on the run) is an a posteriori bound.

    Raises
    ------
    ValueError
        alpha and beta are not in that order.
    """
    a = spectral_confinement(alpha, beta, tau)[0] if floor is None else floor
    return 4 * a * strong_convexity(alpha, beta, tau)


def iterations_for(eps: float, rho: float) -> int:
    """Unit steps after which F - F* has shrunk by the factor eps, by the rate rho."""
    check_number("eps", eps, above=0, most=1)
    check_number("rho", rho, above=0, most=1)
    return 0 if eps == 1 else 1 if rho == 1 else math.ceil(math.log(eps) / math.log1p(-rho))


def gap_bound(
    B: Float64[Tensor, "*b d d"],
    G: Float64[Tensor, "*b d d"],
    alpha: Float64[Tensor, "*b"],
    beta: Float64[Tensor, "*b"],
    tau: Float64[Tensor, "*b"],
) -> Float64[Tensor, "*b"]:
    """G5: F(B) - F* <= 1/2 [tr(GB) - sum_j (alpha if g_j > 0 else beta) g_j], g = eig(G).

    By convexity, as the optimum lies in [alpha I, beta I]; the smaller of this and ||G||_F^2 / (8 mu).
    """
    g: Tensor = torch.linalg.eigvalsh(G)
    corner = torch.where(g > 0, alpha[..., None], beta[..., None]) * g
    first = ((G * B).sum(dim=(-2, -1)) - corner.sum(dim=-1)) / 2
    top: Tensor = torch.linalg.eigvalsh(B)[..., -1]
    mus = [
        strong_convexity(*map(float, x)) if float(x[0]) > 0 else 0.0
        for x in zip(alpha.flatten(), beta.flatten(), tau.flatten(), top.flatten(), strict=True)
    ]
    mu = torch.tensor(mus, dtype=B.dtype, device=B.device).reshape(first.shape)
    second = (g * g).sum(dim=-1) / (8 * mu)
    # Rounding of tr(GB) may leave the first one a hair below the true gap.
    rounding = torch.finfo(B.dtype).eps * B.diagonal(dim1=-2, dim2=-1).sum(dim=-1)
    return torch.minimum(first.clamp(min=0), torch.where(mu > 0, second, torch.inf)) + rounding


def influence_bound(
    upsilon: Float64[np.ndarray, " n"], weights: Float64[np.ndarray, " n"], temperature: float
) -> Float64[np.ndarray, " n"]:
    """G6: the effective weight of input i is at most exp(-(U_i - min_j U_j)/T) lam_i / lam_min.

    lam_min is the weight of the input with the smallest Upsilon.

    Parameters
    ----------
    upsilon
        Upsilon_i, what it costs to explain each input.
    weights
        lam_i, those given.
    temperature
        T, of the free mass, in the unit of upsilon.
    """
    there = weights > 0
    best = np.flatnonzero(there)[upsilon[there].argmin()]
    return np.asarray(np.exp(-(upsilon - upsilon[best]) / temperature) * weights / weights[best])


def stretch_bound(lambda_min: float, tau: float) -> float:
    """G6: lambda_max(S_i) <= (1 + sqrt(1 + 2 tau / lambda_min(B))) / 2; inf for singular B or tau = inf."""
    if not lambda_min > 0:
        return math.inf
    return (1 + math.sqrt(1 + 2 * tau / lambda_min)) / 2


def _check_range(alpha: float, beta: float) -> None:
    if not 0 < alpha <= beta < math.inf:
        raise ValueError(f"alpha and beta must be 0 < alpha <= beta < inf, got {alpha} and {beta}")
