"""The barycenter as a scikit-learn estimator of a covariance."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from surefoot._numerics.checks import check_number
from surefoot.barycenter._solver.checks import called, normalised
from surefoot.barycenter.barycenter import suot_barycenter
from surefoot.barycenter.gaussian import suot_gaussian


class SUOTMean(BaseEstimator):  # type: ignore[misc]
    """The semi-unbalanced barycenter as a scikit-learn estimator of a covariance.

    After `fit`: `covariance_` (d, d), `location_` (d,) or None, `scores_` (n,), `weights_` (n,),
    `n_iter_`, and the `BarycenterResult` itself as `result_`.

    Parameters
    ----------
    tau, mass, mass_tau, init, tol, max_iter, debias
        As in `suot_barycenter`.
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
        """Average covariances.

        Parameters
        ----------
        X
            Covariances (n, d, d).
        y
            Ignored; scikit-learn passes it.
        sample_weight
            One weight an input, not negative; they need not sum to 1.
        means
            Means (n, d), or None for centred Gaussians.
        """
        with called(covs="X", weights="sample_weight"):
            r = suot_barycenter(
                X, means=means, weights=normalised(sample_weight), tau=self.tau, mass=self.mass,
                mass_tau=self.mass_tau, init=self.init, tol=self.tol, max_iter=self.max_iter,
                debias=self.debias,
            )  # fmt: skip
        self.result_ = r
        self.covariance_, self.location_ = r.cov, r.mean
        self.scores_, self.weights_, self.n_iter_ = r.outlier_score, r.weights_, r.n_iter
        return self

    def predict_outlier(self, q: float) -> Any:
        """Which of the inputs score above the q-quantile of all scores, 0 <= q <= 1; each counts once."""
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
