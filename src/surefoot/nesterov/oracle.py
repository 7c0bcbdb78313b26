"""Exact expectations on a quadratic under gradient noise: no Monte Carlo, no seeds.

For f = sum lam_i x_i^2 / 2 the second moments M_i = E[(x_i, v_i)(x_i, v_i)^T] obey a closed linear
recursion. With Y = (1, alpha), T_i = [Y - eta lam_i Y; rho((0, 1) - lam_i Y)], c = (-eta, -rho):

    M_i <- T_i M_i T_i^T + var_i c c^T.

Noise "colinear" (the gradient times 1 + sigma_m xi): var_i = sigma_m^2 lam_i^2 Y M_i Y^T + sigma_a^2/P;
"isotropic": var_i = (sigma_m^2 sum_j lam_j^2 Y M_j Y^T + sigma_a^2)/P. Derived here, in the setting of
arXiv 2302.05515.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from jaxtyping import Float
from scipy.optimize import brentq

from surefoot._numerics.arguments import checked
from surefoot._numerics.checks import check_choice, check_number, check_numbers
from surefoot.nesterov.parameters import AgnesParams

Noise = Literal["isotropic", "colinear"]


def _maps(
    lam: Float[np.ndarray, " P"], params: AgnesParams
) -> tuple[Float[np.ndarray, " 2"], Float[np.ndarray, " 2"], Float[np.ndarray, "P 2 2"]]:
    y = np.array([1.0, params.alpha])
    c = np.array([-params.eta, -params.rho])
    position = y[None, :] * (1 - params.eta * lam)[:, None]
    velocity = params.rho * (np.array([0.0, 1.0]) - lam[:, None] * y)
    return y, c, np.stack([position, velocity], axis=1)


@checked
def exact_quadratic_expectation(
    lams: Sequence[float] | Float[np.ndarray, " P"],
    x0: Sequence[float] | Float[np.ndarray, " P"],
    params: AgnesParams,
    sigma_mult: float,
    sigma_add: float,
    n: int,
    noise: Noise = "isotropic",
) -> Float[np.ndarray, " steps"]:
    """E f(x_k) for k = 0..n, from rest at x0.

    Parameters
    ----------
    lams
        The eigenvalues lam of the quadratic, shape (P,).
    x0
        The start in its eigenbasis, shape (P,).
    params
        The constants of the method.
    sigma_mult, sigma_add
        sigma_m and sigma_a.
    n
        The last step.
    noise
        "isotropic" or "colinear", see above.

    Raises
    ------
    ValueError
        lams and x0 of different lengths, an unknown noise, or an n that is negative or no whole number.
    """
    lam, x = check_numbers("lams", lams), check_numbers("x0", x0)
    sigma_mult = check_number("sigma_mult", sigma_mult, least=0)
    sigma_add = check_number("sigma_add", sigma_add, least=0)
    if lam.shape != x.shape or lam.ndim != 1:
        raise ValueError(f"lams and x0 must be equally long, got {lam.shape} and {x.shape}")
    check_choice("noise", noise, ("isotropic", "colinear"))
    n = check_number("n", n, least=0, whole=True)
    y, c, T = _maps(lam, params)
    spread = np.outer(c, c)
    M = np.zeros((len(lam), 2, 2))
    M[:, 0, 0] = x**2
    values = np.empty(n + 1)
    for k in range(n + 1):
        values[k] = 0.5 * (lam * M[:, 0, 0]).sum()
        gradient = lam**2 * np.einsum("i,pij,j->p", y, M, y)
        share = gradient if noise == "colinear" else np.full(len(lam), gradient.sum() / len(lam))
        variance = sigma_mult**2 * share + sigma_add**2 / len(lam)
        M = T @ M @ T.transpose(0, 2, 1) + variance[:, None, None] * spread
    return values


def moment_decay(
    lams: Sequence[float], params: AgnesParams, sigma_mult: float, noise: Noise = "isotropic"
) -> float:
    """1 - spectral radius of the moment map: the exact asymptotic decay of E f a step."""
    lam = np.asarray(lams, dtype=np.float64)
    P = len(lam)
    y, c, T = _maps(lam, params)
    linear = np.zeros((4 * P, 4 * P))
    spread, probe = np.outer(c, c).reshape(-1), np.outer(y, y).reshape(-1)
    for i in range(P):
        rows = slice(4 * i, 4 * i + 4)
        linear[rows, rows] += np.kron(T[i], T[i])
        for j in range(P):
            weight = float(i == j) if noise == "colinear" else 1 / P
            columns = slice(4 * j, 4 * j + 4)
            linear[rows, columns] += sigma_mult**2 * weight * lam[j] ** 2 * np.outer(spread, probe)
    return float(1 - np.abs(np.linalg.eigvals(linear)).max())


def critical_noise(
    lams: Sequence[float], params: AgnesParams, noise: Noise = "isotropic", tol: float = 1e-6
) -> float:
    """The sigma_m beyond which E f diverges, to `tol`; ValueError where it does without noise."""

    def decay(sigma_mult: float) -> float:
        return moment_decay(lams, params, sigma_mult, noise)

    if not decay(0.0) > 0:
        raise ValueError(f"E f must decay without noise for a critical one, got {params}")
    high = 1.0
    while decay(high) > 0:
        high *= 2
    return float(brentq(decay, 0.0, high, xtol=tol))
