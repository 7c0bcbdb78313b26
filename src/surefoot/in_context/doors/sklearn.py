"""A scikit-learn regressor as an in-context predictor: fitted anew on every prompt's examples."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from sklearn.base import clone
from torch import Tensor

from surefoot._numerics.arguments import checked


@checked
class RegressorPredictor:
    """Fit a clone of a regressor on a prompt's n examples and predict its query.

    Most regressors fit an intercept by default, which gradient descent from the papers does not: for least
    squares on the prompt give `fit_intercept=False`.

    Parameters
    ----------
    estimator
        With `fit(X, y)` and `predict(X)`, rows being examples; it is not changed. Give its `random_state`
        if it has one.
    """

    def __init__(self, estimator: Any) -> None:
        if isinstance(estimator, type) or not (
            hasattr(estimator, "fit") and hasattr(estimator, "predict")
        ):
            raise ValueError(f"estimator must be an object with fit and predict, got {estimator!r}")
        self.estimator = estimator

    def __call__(
        self, X: Float[Tensor, "B d n"], y: Float[Tensor, "B n"], xq: Float[Tensor, "B d"]
    ) -> Float[Tensor, " B"]:
        """One prediction a prompt."""
        found = [
            clone(self.estimator).fit(rows.T, labels).predict(query[None])
            for rows, labels, query in zip(X.numpy(), y.numpy(), xq.numpy(), strict=True)
        ]
        return torch.from_numpy(np.asarray(found, dtype=np.float64).reshape(len(found)))
