"""What is promised of the descent, as plain functions of numbers (all derived here).

F = 1/2 sum lam_i Upsilon_i (free mass: the L of `problem.py`), G = I - sum lam_i S_i,
||G||_B^2 = tr(G B G), and alpha I <= A_i <= beta I for the inputs of positive weight.
"""

from __future__ import annotations

import math
import sys

import numpy as np
import torch
from jaxtyping import Float64, Inexact
from scipy.optimize import brentq
from torch import Tensor

from surefoot._numerics.arguments import checked
from surefoot._numerics.checks import check_number, check_numbers
from surefoot.errors import SurefootError

ROUNDING = 1e-12
QUADRATURE = 1e-9
NODES, WEIGHTS = np.polynomial.legendre.leggauss(64)
Floats = Float64[np.ndarray, "*n"]


class GuaranteeViolation(SurefootError, ArithmeticError):
    """A proven inequality failed beyond rounding: a defect of this library, or of the hardware."""


def keep_promise(reached: float, ceiling: float, slack: float, step: int) -> None:
    """Raise GuaranteeViolation where a step ended above what its method promises by more than rounding."""
    if reached - ceiling > slack:
        raise GuaranteeViolation(
            f"the objective is {reached:.17g} after step {step} where at most {ceiling:.17g} is possible; "
            "this is a defect, please report it"
        )
    if math.isnan(reached):
        raise GuaranteeViolation(
            f"the objective is NaN after step {step}; please report the inputs"
        )


@checked
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

    Raises
    ------
    ValueError
        An argument that is no finite number.
    """
    F, eta = check_number("F", F), check_number("eta", eta, least=0)
    grad_norm2 = check_number("grad_norm2", grad_norm2, least=0)
    return F - (eta - eta * eta / 2) * grad_norm2


@checked
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
        K is less than 1, or Flow is above F0, which it is never to be.
    """
    K = check_number("K", K, least=1, whole=True)
    F0, Flow = check_number("F0", F0), check_number("Flow", Flow)
    if Flow > F0:
        raise ValueError(f"Flow must be at most F0 = {F0:g}, got {Flow:g}")
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


@checked
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
        alpha and beta are not in that order, or tau is not positive.
    """
    alpha, beta, tau = _check_range(alpha, beta, tau)
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


@checked
def linear_rate(
    alpha: float, beta: float, tau: float, floor: float | None = None, top: float | None = None
) -> float:
    """G4: rho with F(B_k) - F* <= (1-rho)^k (F(B_0) - F*) for unit steps, in every dimension.

    rho = (1 - L/2) min(Lambda(floor), Lambda(top)), L of `step_smoothness` and Lambda of `gradient_share`.
    It is exact where alpha = beta, tau (2 alpha + tau) / (alpha + tau)^2, and tends to 2 tau/beta for small
    tau.

    Parameters
    ----------
    alpha, beta
        The extreme eigenvalues over all inputs, 0 < alpha <= beta.
    tau
        Price of deforming an input, positive; may be inf.
    floor, top
        Between them lie the eigenvalues of the iterates. By default what `spectral_confinement` proves of
        steps that start among the inputs; for an a posteriori bound min(alpha, the smallest one met on the
        run) and max(beta, the largest one).

    Raises
    ------
    ValueError
        alpha and beta are not in that order, tau or top is not positive, or floor is not
        above 0 and at most beta.
    """
    alpha, beta, tau = _check_range(alpha, beta, tau)
    b = beta if top is None else max(beta, check_number("top", top, above=0))
    if floor is None:
        a = spectral_confinement(alpha, beta, tau)[0]
    else:
        a = check_number("floor", floor, above=0, most=b)
    phi = map_floor(b, alpha, tau)
    # What is known of iterates is proved for the points between them too; what was measured is not.
    smooth = step_smoothness(a if floor is None else a * phi**2, phi, tau)
    share = min(gradient_share(x, alpha, b, tau) for x in (a, b))
    return (1 - smooth / 2) * share * (1 - QUADRATURE)


def step_smoothness(least: float, phi: float, tau: float) -> float:
    """L in F((I - G) B (I - G)) <= F(B) - (1 - L/2) ||G||_B^2: 1 - a phi^2 / (tau + a phi), at most 1 (G1).

    Proof: along B_t = (I - tG) B (I - tG), with tangent L_t, the second derivative of Upsilon is its
    Hessian at E = L_t B_t + B_t L_t plus 2 tr((I - S) L_t B_t L_t). That Hessian is the maximum over
    symmetric K of 2 <K, E> - (2/tau) tr(K B K Q), where Q = B # (B + 2 tau A_t) = B + tau S^-1. B_t >= a I
    and S >= phi I give B_t >= a phi S^-1, so that it is at most 2 tr(S L_t B_t L_t) / (1 + a phi / tau);
    and tr(L_t B_t L_t) is ||G||_B^2 at every t.

    Parameters
    ----------
    least
        a, the smallest eigenvalue of any B_t.
    phi
        `map_floor`, the smallest stretch of the maps S.
    tau
        Price of deforming an input; may be inf.
    """
    return 1.0 if math.isinf(tau) else 1 - least * phi**2 / (tau + least * phi)


def gradient_share(b: float, alpha: float, beta: float, tau: float) -> float:
    """Lambda(b): ||G||_B^2 >= min(Lambda(a), Lambda(beta)) (F(B) - F*) for a I <= B <= beta I.

    Lambda(b) = 4 tau b int_0^1 (1-t) / (x q(x)) dt with x = (1-t) b + t beta and
    q(x)^2 = x^2 + 2 tau x + tau^2 x/alpha.

    Proof: the optimum is at most beta I, so B + t (B* - B) is at most X_t = (1-t) B + t beta I, and Q of
    `step_smoothness` at most q(X_t), as # is monotone. In the eigenbasis of B the Hessian of F on the way
    is therefore at least sum_jk E_jk^2 tau / (x_j q_k + x_k q_j). Minimised over E = B* - B this gives the
    gap at most sum_jk G_jk^2 / (8 tau J_jk) with J_jk = int (1-t) / (x_j q_k + x_k q_j) dt. The ratio of
    ||G||_B^2 to that is at least the smallest Lambda(b, b') = 4 tau (b + b') J, and that is Lambda(a) or
    Lambda(beta). Off the diagonal, with p = q/x and D = b / (x^2 p), the integrand is at least the mean of
    D and D' with the weights p and p'; for b <= b' the weight of D falls in t from at most 1 to 1/2, while
    the sign of D - D' changes once, from + to -: the integral is at least the smaller of the two on the
    diagonal. There Lambda'(b) has the sign of a W with W = W' = 0 at beta whose second derivative changes
    sign once, from + to - (that of a cubic, by Descartes' rule): Lambda rises, then falls.

    Parameters
    ----------
    b
        An eigenvalue of the iterate, at most beta.
    alpha, beta
        The smallest eigenvalue over all inputs, the largest over inputs and iterates.
    tau
        Price of deforming an input; may be inf.
    """
    length = math.log(beta / b)

    def share(x: Floats) -> Floats:
        return np.asarray(1 / np.sqrt((x / tau) ** 2 + 2 * x / tau + x / alpha))  # tau / q(x)

    if length < 1e-6:
        return float(2 * share(np.array(beta)) * (b / beta))
    v = length * (NODES + 1) / 2
    left = np.expm1(length) - np.expm1(v)
    return float(2 * length * (WEIGHTS * left * share(b * np.exp(v))).sum() / np.expm1(length) ** 2)


@checked
def iterations_for(eps: float, rho: float) -> int:
    """Unit steps after which F - F* has shrunk by the factor eps, by the rate rho."""
    check_number("eps", eps, above=0, most=1)
    check_number("rho", rho, above=0, most=1)
    return 0 if eps == 1 else 1 if rho == 1 else math.ceil(math.log(eps) / math.log1p(-rho))


def gap_bound(
    B: Inexact[Tensor, "*b d d"],
    G: Inexact[Tensor, "*b d d"],
    alpha: Float64[Tensor, "*b"],
    beta: Float64[Tensor, "*b"],
    tau: Float64[Tensor, "*b"],
    off: float = 0.0,
) -> Float64[Tensor, "*b"]:
    """G5: F(B) - F* <= 1/2 [tr(GB) - sum_j (alpha if g_j > 0 else beta) g_j], g = eig(G).

    By convexity, as the optimum lies in [alpha I, beta I]; the smaller of this and ||G||_F^2 / (8 mu).
    Where G is known to within off I only, at the worst such G.
    """
    g, top = torch.linalg.eigvalsh(G), torch.linalg.eigvalsh(B)[..., -1]
    inner, trace = (G * B.conj()).real.sum(dim=(-2, -1)), B.diagonal(dim1=-2, dim2=-1).real.sum(-1)
    d = B.shape[-1]
    spectra: np.ndarray = g.reshape(-1, d).cpu().numpy()
    numbers = np.array([x.flatten().tolist() for x in (inner, top, trace, alpha, beta, tau)])
    gaps = [gap_of(a, *map(float, b), off=off) for a, b in zip(spectra, numbers.T, strict=True)]
    found: Tensor = torch.tensor(gaps, dtype=torch.float64, device=B.device)
    return found.reshape(inner.shape)


def gap_of(
    g: Float64[np.ndarray, " d"], inner: float, top: float, trace: float,
    alpha: float, beta: float, tau: float, *, off: float,
) -> float:  # fmt: skip
    """`gap_bound` of one problem: by the eigenvalues of G, tr(GB), lambda_max(B) and tr B."""
    first = (inner - float(np.where(g > 0, alpha, beta) @ g)) / 2
    mu = strong_convexity(alpha, beta, tau, top) if alpha > 0 else 0.0
    size = math.sqrt(float(g @ g)) + off * math.sqrt(len(g))
    second = size * size / (8 * mu) if mu > 0 else math.inf
    if math.isnan(first + second):
        return math.nan
    first = max(first, 0.0) + off * (trace + len(g) * beta) / 2
    # Rounding of tr(GB) may leave the first one a hair below the true gap.
    return min(first, second) + sys.float_info.epsilon * trace


@checked
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
        T, of the free mass, in the unit of upsilon; positive.

    Raises
    ------
    ValueError
        Arrays that are none, of different lengths, or of which no weight is positive.
    """
    upsilon = check_numbers("upsilon", upsilon, ndim=1)
    weights = check_numbers("weights", weights, ndim=1, nonnegative=True)
    temperature = check_number("temperature", temperature, above=0, finite=False)
    if len(upsilon) != len(weights) or not weights.any():
        raise ValueError(
            f"upsilon and weights must have one length and a weight that is positive, got {len(upsilon)} "
            f"of upsilon and weights {weights}"
        )
    there = weights > 0
    best = np.flatnonzero(there)[upsilon[there].argmin()]
    return np.asarray(np.exp(-(upsilon - upsilon[best]) / temperature) * weights / weights[best])


def stretch_bound(lambda_min: float, tau: float) -> float:
    """G6: lambda_max(S_i) <= (1 + sqrt(1 + 2 tau / lambda_min(B))) / 2; inf for singular B or tau = inf."""
    lambda_min = check_number("lambda_min", lambda_min, least=0)
    tau = check_number("tau", tau, least=0, finite=False)
    if not lambda_min > 0:
        return math.inf
    return (1 + math.sqrt(1 + 2 * tau / lambda_min)) / 2


def _check_range(alpha: float, beta: float, tau: float) -> tuple[float, float, float]:
    alpha, beta = check_number("alpha", alpha, above=0), check_number("beta", beta, above=0)
    if alpha > beta:
        raise ValueError(f"alpha and beta must be 0 < alpha <= beta < inf, got {alpha} and {beta}")
    return alpha, beta, check_number("tau", tau, above=0, finite=False)
