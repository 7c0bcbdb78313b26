"""The formulas as one would write them on paper, with inverses: what the fast path is held against.

NumPy and SciPy only, one pair at a time, positive definite matrices.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64
from scipy.linalg import eigh
from scipy.optimize import minimize

Matrix = Float64[np.ndarray, "d d"]


def sqrtm(M: Float64[np.ndarray, "d d"]) -> Float64[np.ndarray, "d d"]:
    """The positive semidefinite square root."""
    w, V = eigh(M)
    return np.asarray((V * np.sqrt(np.clip(w, 0, None))) @ V.T)


def bures(A: Float64[np.ndarray, "d d"], B: Float64[np.ndarray, "d d"]) -> float:
    """W2^2(N(0, A), N(0, B)) = tr A + tr B - 2 tr (A^1/2 B A^1/2)^1/2."""
    root = sqrtm(A)
    return float(np.trace(A) + np.trace(B) - 2 * np.trace(sqrtm(root @ B @ root)))


def kl(X: Float64[np.ndarray, "d d"], A: Float64[np.ndarray, "d d"]) -> float:
    """KL(N(0, X) || N(0, A))."""
    ratio = np.linalg.solve(A, X)
    return float(np.trace(ratio) - len(A) - np.linalg.slogdet(ratio)[1]) / 2


def geometric_mean(
    P: Float64[np.ndarray, "d d"], Q: Float64[np.ndarray, "d d"]
) -> Float64[np.ndarray, "d d"]:
    """P # Q."""
    root = sqrtm(P)
    inverse = np.linalg.inv(root)
    return np.asarray(root @ sqrtm(inverse @ Q @ inverse) @ root)


def relaxed_input(
    A: Float64[np.ndarray, "d d"], B: Float64[np.ndarray, "d d"], tau: float
) -> Float64[np.ndarray, "d d"]:
    """Sigma_x in the form of the authors' code, with M = B^-1/2 A_t B^-1/2, A_t = I + tau/2 A^-1."""
    eye = np.eye(len(A))
    b = np.linalg.inv(sqrtm(B))
    M = b @ (eye + tau / 2 * np.linalg.inv(A)) @ b
    inverse = np.linalg.inv(M)
    inner = tau / 2 * eye + (inverse @ (eye + sqrtm(eye + 2 * tau * M))) / 2
    X = b @ inverse @ inner @ b
    return np.asarray((X + X.T) / 2)


def upsilon(A: Float64[np.ndarray, "d d"], B: Float64[np.ndarray, "d d"], tau: float) -> float:
    """W2^2(Sigma_x, B) + tau KL(Sigma_x || A)."""
    X = relaxed_input(A, B, tau)
    return bures(X, B) + tau * kl(X, A)


def minimum(A: Float64[np.ndarray, "d d"], B: Float64[np.ndarray, "d d"], tau: float) -> float:
    """The least W2^2(X, B) + tau KL(X || A) that BFGS finds over Cholesky factors of X.

    It knows nothing of the closed form.
    """
    lower = np.tril_indices(len(A))

    def cost(v: np.ndarray) -> float:
        L = np.zeros_like(A)
        L[lower] = v
        X = L @ L.T
        if not np.linalg.slogdet(X)[0] > 0:
            return 1e10
        return bures(X, B) + tau * kl(X, A)

    start = np.linalg.cholesky((A + B) / 2)[lower]
    return float(minimize(cost, start, method="BFGS", options={"gtol": 1e-9}).fun)


def optimal_map(
    A: Float64[np.ndarray, "d d"], B: Float64[np.ndarray, "d d"], tau: float
) -> Float64[np.ndarray, "d d"]:
    """S = B^-1 # Sigma_x."""
    return geometric_mean(np.linalg.inv(B), relaxed_input(A, B, tau))


def barycenter_step(
    B: Float64[np.ndarray, "d d"],
    covs: Float64[np.ndarray, "n d d"],
    weights: Float64[np.ndarray, " n"],
    tau: float,
    eta: float = 1.0,
) -> Float64[np.ndarray, "d d"]:
    """One step of exact geodesic gradient descent: (I - eta G) B (I - eta G), G = I - sum lam_i S_i."""
    S = sum(w * optimal_map(A, B, tau) for w, A in zip(weights, covs, strict=True))
    move = (1 - eta) * np.eye(len(B)) + eta * S
    return np.asarray(move @ B @ move)
