"""The barycenter as a scikit-learn estimator of a covariance."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from surefoot._numerics.checks import called, check_number
from surefoot.barycenter._solver.checks import as_covariances, as_float64, normalised
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
    dof
        Degrees of freedom of the Wishart law that `score` takes held-out matrices to have: the number of
        samples behind each. By default d, the least with which they are invertible.
        Which of several estimators scores higher does not depend on it.
    """

    def __init__(
        self, tau: Any = "auto", mass: str = "fixed", mass_tau: Any = None, init: Any = None,
        tol: float = 1e-8, max_iter: int = 1000, debias: str | None = None,
        dof: float | None = None,
    ) -> None:  # fmt: skip
        self.tau = tau
        self.mass = mass
        self.mass_tau = mass_tau
        self.init = init
        self.tol = tol
        self.max_iter = max_iter
        self.debias = debias
        self.dof = dof

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

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """Mean log-likelihood of held-out covariances, in nats: tau is not in it, and may be chosen by it.

        A matrix S of X counts by the density of dof S ~ Wishart(dof, covariance_) at S: its mean is
        `covariance_`, as fitted, `debias` included. It is linear in S: outliers held out count in full.

        Parameters
        ----------
        X
            Covariances (n, d, d), positive definite.
        y
            Ignored; scikit-learn passes it.
        sample_weight
            One weight an input, not negative; they need not sum to 1.

        Returns
        -------
        -inf where `covariance_` is singular.

        Raises
        ------
        ValueError
            A matrix has another size or is not positive definite, or dof <= d - 1.
        """
        check_is_fitted(self)
        S, scale = as_covariances(X, "X"), as_covariances(self.covariance_, "covariance_")
        d = int(scale.shape[-1])
        if S.ndim != 3 or S.shape[-1] != d:
            raise ValueError(f"X must have shape (n, {d}, {d}), got {tuple(S.shape)}")
        dof = check_number("dof", float(d) if self.dof is None else self.dof, above=d - 1)
        lower, info = torch.linalg.cholesky_ex(S)
        if bool(info.any()):
            raise ValueError(
                f"X must be positive definite to have a likelihood, got a singular matrix at index "
                f"{int(info.nonzero()[0])}; add a ridge, or drop it"
            )
        mean, singular = torch.linalg.cholesky_ex(scale / dof)
        if bool(singular):
            return -math.inf
        log_det = 2 * lower.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        log_det_mean = 2 * mean.diagonal().log().sum()
        traces = torch.linalg.solve_triangular(mean, lower, upper=False).square().sum((-2, -1))
        known = 0.5 * dof * d * math.log(2) + float(
            torch.mvlgamma(torch.tensor(0.5 * dof).double(), d)
        )
        each = 0.5 * ((dof - d - 1) * log_det - traces - dof * log_det_mean) - known
        if sample_weight is None:
            return float(each.mean())
        with called(weights="sample_weight"):
            weights = as_float64(normalised(sample_weight), "weights")
        if weights.shape != each.shape:
            raise ValueError(
                f"sample_weight must have shape ({len(each)},), got {tuple(weights.shape)}"
            )
        return float((weights * each).sum())

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.three_d_array = True
        tags.input_tags.positive_only = False
        return tags
