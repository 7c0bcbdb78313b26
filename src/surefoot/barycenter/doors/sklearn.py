"""The barycenter under the names and calling conventions people already use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from surefoot._numerics.checks import check_number
from surefoot.barycenter.barycenter import suot_barycenter
from surefoot.barycenter.gaussian import suot_gaussian
from surefoot.barycenter.result import BarycenterResult


def mean_suot(
    X: Any = None, *, sample_weight: Any = None, tau: Any = "auto", mass: str = "fixed",
    mass_tau: Any = None, init: Any = None, tol: float = 1e-8, maxiter: int = 1000,
) -> Any:  # fmt: skip
    """The robust mean of covariances X (..., n, d, d) in pyRiemann's calling convention.

    Without X it returns the mean as a callable of these settings, for classes that take one:
    `MDM(metric={"mean": mean_suot(tau=1.0), "distance": "riemann"})`. Weights need not sum to 1.
    """
    if X is None:
        return partial(
            mean_suot, tau=tau, mass=mass, mass_tau=mass_tau, init=init, tol=tol, maxiter=maxiter
        )
    return suot_barycenter(
        X, weights=_normalised(sample_weight), tau=tau, mass=mass, mass_tau=mass_tau, init=init,
        tol=tol, max_iter=maxiter, certify=False, record=False,
    ).cov  # fmt: skip


def suot_bures_barycenter(
    m: Any, C: Any, weights: Any = None, tau: Any = "auto", mass: str = "fixed", mass_tau: Any = None,
    num_iter: int = 1000, eps: float = 1e-8, log: bool = False,
) -> tuple[Any, ...]:  # fmt: skip
    """Mean mb (d,) and covariance Cb (d, d) for means m (n, d) and covariances C (n, d, d), as in POT.

    The signature of `ot.gaussian.bures_wasserstein_barycenter`. With `log` also a dictionary:
    `cost`, `n_iter`, `converged`, `certificate`, `outlier_score`, `weights`.
    """
    result = suot_barycenter(
        C, means=m, weights=weights, tau=tau, mass=mass, mass_tau=mass_tau, max_iter=num_iter,
        tol=eps, record=False,
    )  # fmt: skip
    if not log:
        return result.mean, result.cov
    about = {
        "cost": 2 * result.value, "n_iter": result.n_iter, "converged": result.converged,
        "certificate": result.certificate, "outlier_score": result.outlier_score,
        "weights": result.weights_,
    }  # fmt: skip
    return result.mean, result.cov, about


def fuse_gaussians(
    means: Any, covs: Any, weights: Any = None, tau: Any = "auto", **options: Any
) -> BarycenterResult:
    """One estimate of several, means (n, d) with covariances (n, d, d), whose errors may be correlated.

    tau = 0 is covariance intersection in closed form; larger tau trusts confident inputs less. The
    mean and covariance of the result are the fused estimate, `outlier_score` says who disagrees.
    Remaining options go to `suot_barycenter`.
    """
    return suot_barycenter(covs, means=means, weights=weights, tau=tau, **options)


@dataclass(frozen=True)
class TauPath:
    """Barycenters along a sweep of tau, in the order given."""

    taus: tuple[float, ...]
    results: tuple[BarycenterResult, ...]

    @property
    def covs(self) -> Any:
        """The barycenters (t, d, d)."""
        return _stack([r.cov for r in self.results])

    @property
    def scores(self) -> Any:
        """The outlier scores (t, n): Upsilon; at tau = 0 its limit over tau."""
        return _stack([r.outlier_score for r in self.results])


def tau_path(covs: Any, taus: Sequence[float], **options: Any) -> TauPath:
    """Barycenters of covs (n, d, d) for every tau, each started from the one before.

    Options go to `suot_barycenter`. Singular barycenters are no start: the next solve then begins anew.
    With free mass the first tau is solved from several starts, the rest follow its branch.
    """
    if not len(taus):
        raise ValueError("taus must hold at least one value, got none")
    results: list[BarycenterResult] = []
    init = options.pop("init", None)
    for tau in taus:
        results.append(suot_barycenter(covs, tau=tau, init=init, **options))
        init = None if results[-1].rank_deficient else results[-1].cov
    return TauPath(tuple(float(t) for t in taus), tuple(results))


class SUOTMean(BaseEstimator):  # type: ignore[misc]
    """The semi-unbalanced barycenter as a scikit-learn estimator of a covariance.

    After `fit`: `covariance_` (d, d), `location_` (d,) or None, `scores_` (n,), `weights_` (n,),
    `n_iter_`, `result_`. Parameters are those of `suot_barycenter`.
    """

    def __init__(
        self, tau: Any = "auto", mass: str = "fixed", mass_tau: Any = None, init: Any = None,
        tol: float = 1e-8, max_iter: int = 1000, debias: str | None = None,
    ) -> None:  # fmt: skip
        self.tau = tau
        self.mass = mass
        self.mass_tau = mass_tau
        self.init = init
        self.tol = tol
        self.max_iter = max_iter
        self.debias = debias

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None, means: Any = None) -> SUOTMean:
        """Average covariances X (n, d, d), and means (n, d) where given; y is ignored."""
        r = suot_barycenter(
            X, means=means, weights=_normalised(sample_weight), tau=self.tau, mass=self.mass,
            mass_tau=self.mass_tau, init=self.init, tol=self.tol, max_iter=self.max_iter,
            debias=self.debias,
        )  # fmt: skip
        self.result_ = r
        self.covariance_, self.location_ = r.cov, r.mean
        self.scores_, self.weights_, self.n_iter_ = r.outlier_score, r.weights_, r.n_iter
        return self

    def predict_outlier(self, q: float) -> Any:
        """Which of the inputs score above the q-quantile of all scores, 0 <= q <= 1."""
        check_is_fitted(self)
        check_number("q", q, least=0, most=1)
        scores = self.scores_
        if isinstance(scores, torch.Tensor):
            return scores > torch.quantile(scores, q)
        return scores > np.quantile(scores, q)

    def score_samples(self, X: Any) -> Any:
        """Upsilon of new covariances (m, d, d) against the barycenter: high is unlike the rest.

        The barycenter is `covariance_`, before any `debias`.
        """
        check_is_fitted(self)
        B = self.covariance_ / self.result_.scale
        return suot_gaussian(X, B, self.result_.tau).upsilon


def _normalised(weights: Any) -> Any:
    """Weights that sum to 1; what is not a usable sum is left for the checks to name."""
    if weights is None:
        return None
    w = weights if isinstance(weights, torch.Tensor) else np.asarray(weights, dtype=np.float64)
    total = w.sum()
    return w / total if float(total) > 0 else w


def _stack(parts: list[Any]) -> Any:
    tensors = isinstance(parts[0], torch.Tensor)
    return torch.stack(parts) if tensors else np.stack(parts)
