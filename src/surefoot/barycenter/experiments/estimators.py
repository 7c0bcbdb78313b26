"""The averages that are compared, ours and the classical ones, and how far one covariance is from another."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from jaxtyping import Float64
from scipy.linalg import eigh

from surefoot.barycenter import reference
from surefoot.barycenter.barycenter import suot_barycenter

Covs = Float64[np.ndarray, "n d d"]
STEPS = 200


def distance(X: Float64[np.ndarray, "d d"], Y: Float64[np.ndarray, "d d"]) -> float:
    """sqrt(W2^2(X, Y) / tr Y)."""
    return math.sqrt(max(reference.bures(X, Y), 0.0) / float(np.trace(Y)))


def _function(A: Float64[np.ndarray, "... d d"], f: Callable[..., np.ndarray]) -> np.ndarray:
    w, V = np.linalg.eigh(A)
    return np.asarray((V * f(w)[..., None, :]) @ V.swapaxes(-1, -2))


def geometric(covs: Covs, median: bool = False) -> Float64[np.ndarray, "d d"]:
    """The affine-invariant mean (Karcher), or with `median` the geometric median (Weiszfeld)."""
    B = covs.mean(axis=0)
    for _ in range(STEPS):
        root, back = _function(B, np.sqrt), _function(B, lambda w: 1 / np.sqrt(w))
        logs = _function(back @ covs @ back, np.log)
        norms = np.sqrt((logs**2).sum(axis=(-2, -1)))
        weights = 1 / np.maximum(norms, 1e-10) if median else np.ones(len(covs))
        move = np.einsum("i,ijk->jk", weights / weights.sum(), logs)
        B = root @ _function(move, np.exp) @ root
        B = (B + B.T) / 2
        if np.linalg.norm(move) < 1e-9:
            break
    return np.asarray(B)


def harmonic(covs: Covs) -> Float64[np.ndarray, "d d"]:
    """The harmonic mean, which is tau = 0."""
    w: np.ndarray = eigh(covs.mean(axis=0), eigvals_only=True)
    if not w[0] > 0:
        raise ValueError("the harmonic mean needs covariances of full rank")
    return np.asarray(suot_barycenter(covs, tau=0, record=False).cov)


def suot(
    tau: float, mass: str = "fixed", debias: str | None = None
) -> Callable[[Covs], np.ndarray]:
    """Our barycenter, for inputs whose mean trace is d; free mass takes the median temperature."""
    temperature = "median" if mass == "free" else None

    def mean(covs: Covs) -> Float64[np.ndarray, "d d"]:
        r = suot_barycenter(
            covs, tau=tau, mass=mass, optimality_gap=False, record=False, mass_tau=temperature,
            debias=debias,
        )  # fmt: skip
        return np.asarray(r.cov)

    return mean


MEANS: dict[str, Callable[[Covs], np.ndarray]] = {
    "arithmetic": lambda covs: np.asarray(covs.mean(axis=0)),
    "Wasserstein": suot(math.inf),
    "affine-invariant": geometric,
    "affine-invariant median": lambda covs: geometric(covs, median=True),
    "harmonic": harmonic,
    "SUOT fixed, tau .1": suot(0.1),
    "SUOT fixed, tau 1": suot(1.0),
    "SUOT free, tau 1": suot(1.0, "free"),
}
DEBIASED = {f"SUOT {mass}, tau 1, debiased": suot(1.0, mass, "trace") for mass in ("fixed", "free")}


def contaminate(
    covs: Covs, kind: str, share: float, rng: np.random.Generator
) -> Float64[np.ndarray, "n d d"]:
    """Spoil a share of the covariances.

    burst: +100 on one random channel; line: +10 d v v^T for a random direction; flat: times 1e-3;
    mixed: a third of each.
    """
    out, n, d = covs.copy(), len(covs), covs.shape[-1]
    for j, i in enumerate(rng.permutation(n)[: round(share * n)]):
        which = ("burst", "line", "flat")[j % 3] if kind == "mixed" else kind
        if which == "burst":
            c = rng.integers(d)
            out[i, c, c] += 100
        elif which == "line":
            v = rng.standard_normal((d,))
            out[i] += 10 * d * np.outer(v, v) / (v @ v)
        else:
            out[i] *= 1e-3
    return out
