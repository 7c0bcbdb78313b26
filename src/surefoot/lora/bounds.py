"""The promised curves: theorems of arXiv 2410.08305 as functions of the number of blocks.

f is L-smooth in the adapted weights (Frobenius), f >= f*, D0 = f(W^0) - f*, lam the smallest and
lam_max the largest eigenvalue of E[H], gamma the step size. W~ is uniform over W^0 ... W^{T-1}.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from jaxtyping import Float, Int

from surefoot._numerics.arguments import checked
from surefoot._numerics.checks import check_choice, check_number, check_numbers
from surefoot.lora.errors import GuaranteeError

RateLaw = Literal["gd", "sgd", "rr", "fed"]
Blocks = int | Int[np.ndarray, " T"]
Numbers = float | Float[np.ndarray, " T"]


@checked(nan=True)
@dataclass(frozen=True)
class RacBound:
    """`grad_norm2` bounds E||grad f(W~)||^2 and `gap`, where mu is known, E f(W^T) - f*."""

    grad_norm2: Numbers
    gap: Numbers | None


def largest_step(law: RateLaw, L: float, local_steps: int = 1) -> float:
    """1/L, or 1/(2 L N) for N reshuffled component functions or local steps.

    Parameters
    ----------
    law
        As in `rac_bound`.
    L
        Smoothness.
    local_steps
        N.
    """
    return 1 / L if law in ("gd", "sgd") else 1 / (2 * L * local_steps)


@checked
def rac_bound(
    T: Blocks,
    law: RateLaw = "gd",
    *,
    L: float,
    gamma: float,
    lam: float,
    gap0: float,
    mu: float | None = None,
    lam_max: float | None = None,
    sigma2: float = 0.0,
    zeta2: float = 0.0,
    local_steps: int = 1,
) -> RacBound:
    """What is promised after T blocks.

    Parameters
    ----------
    T
        Blocks, from 0; `grad_norm2` is infinite at 0.
    law
        "gd": exact gradients. With gamma <= 1/L: 2 D0 / (lam gamma T) [Theorem 5.3], and under PL
        (1 - gamma mu lam)^T D0 [Theorem 5.5]. "sgd": unbiased gradients, independent of the sketch,
        of variance at most sigma2 (derived here, not the paper's expected-smoothness theorem).
        "rr": one epoch of N = `local_steps` reshuffled functions a block, each L-smooth (derived
        here; the paper has such a theorem, its constants were not at hand). "fed": clients that
        take N local steps, sigma2 within and zeta2 between them (derived here).
    L, mu
        Smoothness (of each function for "rr" and "fed") and the PL constant, 0 < mu <= L; without mu there is
        no bound on the gap.
    gamma
        The step size of gradient descent in the adapted weights; for "rr" and "fed" that of one of the N
        steps.
    lam, lam_max
        Eigenvalues of E[H]; lam_max defaults to lam.
    gap0
        D0.
    sigma2
        Bound on the variance E||g - grad f||^2 of a stochastic gradient: of a batch for "sgd", of the N
        functions for "rr", within a client for "fed". It must be 0 for "gd".
    zeta2
        Bound on the spread of the clients' gradients, the mean over clients of ||grad f_i - grad f||^2; "fed"
        only.
    local_steps
        N: the functions of an epoch for "rr", a client's steps in a round for "fed"; without effect for "gd"
        and "sgd".

    Raises
    ------
    GuaranteeError
        The step size is above 1/L, or 1/(2 L N) for "rr" and "fed".
    ValueError
        A constant outside its range.
    """
    check_choice("law", law, get_args(RateLaw))
    _positive(L=L, gamma=gamma, lam=lam)
    lam_max = lam if lam_max is None else check_number("lam_max", lam_max, above=0)
    if lam > lam_max:
        raise ValueError(f"0 < lam <= lam_max is needed, got {lam} and {lam_max}")
    for name, value in (("gap0", gap0), ("sigma2", sigma2), ("zeta2", zeta2)):
        check_number(name, value, least=0)
    check_number("local_steps", local_steps, least=1, whole=True)
    if zeta2 and law != "fed":
        raise ValueError(f"zeta2 is the difference between clients: law must be 'fed', got {law!r}")
    if sigma2 and law == "gd":
        raise ValueError(f"law 'gd' has exact gradients: sigma2 must be 0, got {sigma2}")
    if mu is not None and check_number("mu", mu, above=0) > L * (1 + 1e-12):
        raise ValueError(f"mu must be between 0 and L = {L}, got {mu}")
    most = largest_step(law, L, local_steps)
    if gamma > most * (1 + 1e-12):
        name = "1/L" if law in ("gd", "sgd") else "1/(2 L N)"
        raise GuaranteeError(
            f"the step size gamma = {gamma:.6g} is above {name} = {most:.6g}; lower gamma"
        )
    if gamma * L * lam > 1 + 1e-9:
        raise ValueError(
            f"lam must be at most 1/(gamma L) = {1 / (gamma * L):.6g}, that of a projection, got {lam}"
        )
    t = check_numbers("T", T, nonnegative=True)
    if (t != np.floor(t)).any():
        raise ValueError(f"T must be whole numbers of blocks, got {T!r}")
    N = local_steps
    if law in ("gd", "sgd"):
        rate, floor = gamma * lam, gamma * L * sigma2 * lam_max / lam
        first, gap_floor = 2 * gap0, floor / (2 * mu) if mu else 0.0
    else:
        # Drift of an epoch: sum_i E||W_i - W||^2 <= g^2 N^3 ||grad f||^2 + g^2 N^2 sigma^2.
        noise = sigma2 + (N * zeta2 if law == "fed" else 0.0)
        rate = 0.75 * gamma * N * lam
        floor = 4 / 3 * (gamma * L) ** 2 * N * noise * lam_max / lam
        # 2/(3/4) D0: the same telescoping sum with the smaller rate.
        first, gap_floor = 2 * gap0, floor / (2 * mu) if mu else 0.0
    with np.errstate(divide="ignore", invalid="ignore"):
        grad = np.where(t > 0, first / (rate * t), np.inf) + floor
    gap = (1 - rate * mu) ** t * gap0 + gap_floor if mu is not None else None
    return RacBound(_plain(grad), None if gap is None else _plain(gap))


@checked
def blocks_to(eps: float, *, gamma: float, lam: float, mu: float) -> int:
    """Blocks after which the promised gap is eps D0 (Theorem 5.5): log(1/eps) / -log(1 - g mu lam).

    Parameters
    ----------
    eps
        Between 0 and 1.
    gamma, lam, mu
        Step size, smallest eigenvalue of E[H], PL constant.
    """
    check_number("eps", eps, above=0, below=1)
    _positive(gamma=gamma, lam=lam, mu=mu)
    rate = gamma * mu * lam
    if rate >= 1:
        return 1
    return math.ceil(math.log(1 / eps) / -math.log1p(-rate))


def asymm_floor(M: np.ndarray, b: np.ndarray, a: np.ndarray) -> float:
    """Where AsymmLoRA ends on f(W) = sum M_ij W_ij^2 + b_ij W_ij from W0 = 0 with r = 1 and row a.

    The minimum over {B a}: - sum_i (sum_j b_ij a_j)^2 / (4 sum_j M_ij a_j^2). Derived here.

    Parameters
    ----------
    M, b
        The quadratic, (m, n) each.
    a
        The frozen row, (n,).
    """
    return float(-(((b @ a) ** 2) / (4 * (M @ a**2))).sum())


def lora_smoothness(s: float, L: float, norm_A: float, norm_B: float, norm_G: float) -> float:
    """Largest curvature of phi(A, B) = f(W0 + s B A): s^2 L (|A|^2 + |B|^2) + s |G|, spectral norms.

    It grows with the factors, so phi is smooth for no constant (G8; derived here, attained by 1 x 1
    factors). With one factor orthonormal and frozen it is s^2 L.

    Parameters
    ----------
    s
        The scaling.
    L
        Smoothness of f.
    norm_A, norm_B, norm_G
        Spectral norms of the factors and of the gradient in W.
    """
    return s**2 * L * (norm_A**2 + norm_B**2) + s * norm_G


def _positive(**values: float) -> None:
    for name, value in values.items():
        check_number(name, value, above=0)


def _plain(values: Any) -> Any:
    return float(values) if np.ndim(values) == 0 else values
