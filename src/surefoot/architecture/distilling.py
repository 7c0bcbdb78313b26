"""Any predictor as the smallest network that matches it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from jaxtyping import Shaped
from torch import Tensor, nn

from surefoot._numerics.arguments import checked
from surefoot._numerics.checks import check_numbers
from surefoot.architecture._autoencoder.functions import evaluating
from surefoot.architecture.estimators import CompactMLPClassifier, CompactMLPRegressor


@checked
def compress(
    module_or_callable: nn.Module | Callable[[Any], Any] | Any,
    X: Shaped[np.ndarray, "n features"],
    **settings: Any,
) -> CompactMLPRegressor | CompactMLPClassifier:
    """Distil a predictor into the smallest network that matches it on X.

    Parameters
    ----------
    module_or_callable
        A torch module, a function of an (n, features) array, or an estimator with `predict`. One with
        `predict_proba` or `classes_` is a classifier, and its predicted labels are matched; of others the
        outputs.
    X : (n, features) array
        Rows on which to match it, unlabelled.
    settings
        Of the estimator that comes back, for instance max_params or time_budget.

    Returns
    -------
    CompactMLPClassifier or CompactMLPRegressor
        Fitted; `score(X, ...)` and its certificates are about agreement with the predictor.

    Raises
    ------
    ValueError
        X is no table of numbers, or the predictor gives other than one row of finite numbers a row.
    TypeError
        The first argument predicts nothing.
    """
    x = check_numbers("X", X, ndim=2)
    source: Any = module_or_callable
    given = copy.deepcopy(X)  # as a callable may write into what it is given
    if hasattr(source, "predict_proba") or hasattr(source, "classes_"):
        return CompactMLPClassifier(**settings).fit(X, source.predict(given))
    if isinstance(source, nn.Module):
        found = _module(source, x)
    elif hasattr(source, "predict"):
        found = source.predict(given)
    elif callable(source):
        found = source(given)
    else:
        raise TypeError(
            "module_or_callable must be a torch module, a callable or an estimator with predict, "
            f"got {type(source).__name__}"
        )
    y = check_numbers("outputs of module_or_callable", found)
    if y.ndim not in (1, 2) or len(y) != len(x):
        raise ValueError(
            f"module_or_callable must give ({len(x)},) or ({len(x)}, outputs), got {y.shape}"
        )
    return CompactMLPRegressor(**settings).fit(X, y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y)


def _module(module: nn.Module, x: np.ndarray) -> np.ndarray:
    """Its outputs in evaluation mode, in which none of its modules is left if it was in another."""
    rows = torch.from_numpy(x)
    like = next((p for p in module.parameters() if p.is_floating_point()), rows)
    with evaluating(module):
        found = module(rows.to(like, copy=True))
    if not isinstance(found, Tensor):
        raise ValueError(f"module_or_callable must give a tensor, got {type(found).__name__}")
    return np.asarray(found.detach().to(torch.float64).cpu().numpy())
