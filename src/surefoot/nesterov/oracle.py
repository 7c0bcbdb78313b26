"""Exact expectation."""

from __future__ import annotations

from typing import Any

import numpy as np

from surefoot.nesterov.parameters import AgnesParams


def exact_quadratic_expectation(
    lams: Any, x0: Any, params: AgnesParams, sigma_mult: float, sigma_add: float, n: int,
    noise: str = "isotropic",
) -> np.ndarray:  # fmt: skip
    """E f(x_k), k = 0..n."""
    lam, x = np.asarray(lams, float), np.asarray(x0, float)
    P = len(lam)
    y = np.array([1.0, params.alpha])
    c = np.array([-params.eta, -params.rho])
    T = np.stack(
        [np.outer([1.0, 0.0], y) - params.eta * la * np.outer([1.0, 0.0], y)
         + params.rho * np.outer([0.0, 1.0], np.array([0.0, 1.0]) - la * y) for la in lam]
    )  # fmt: skip
    M = np.zeros((P, 2, 2))
    M[:, 0, 0] = x**2
    out = [0.5 * float((lam * M[:, 0, 0]).sum())]
    for _ in range(n):
        grad = lam**2 * np.einsum("i,pij,j->p", y, M, y)
        if noise == "colinear":
            var = sigma_mult**2 * grad + sigma_add**2 / P
        else:
            var = np.full(P, (sigma_mult**2 * grad.sum() + sigma_add**2) / P)
        M = T @ M @ T.transpose(0, 2, 1) + var[:, None, None] * np.outer(c, c)
        out.append(0.5 * float((lam * M[:, 0, 0]).sum()))
    return np.array(out)
