"""scikit-learn estimators whose answer is the smallest plain network that is still accurate."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from jaxtyping import Float64
from scipy.special import expit, softmax
from sklearn.base import ClassifierMixin, RegressorMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_array, check_is_fitted, column_or_1d, validate_data

from surefoot.architecture._estimator.base import CompactMLP


class CompactMLPClassifier(ClassifierMixin, CompactMLP):  # type: ignore[misc]
    """The smallest network that classifies a table well, its size chosen together with its weights.

    Parameters
    ----------
    strategy : str
        "portfolio": dense networks, direct search and, given an autoencoder, search in its embedding share
        the budget (dense networks alone below 10 seconds); "dense", "direct" or "autoencoder": one of these
        alone. The linear and the constant model are always among the candidates.
    max_width, max_depth : int
        Most neurons of a hidden layer, most hidden layers; an autoencoder must not be wider.
    activations : tuple of str
        Distinct ones of `ACTIVATIONS`, those of an autoencoder among them; the direct search chooses for each
        neuron.
    size_penalties : tuple of float
        Weights of the parameter count in the searches, one search each.
    prune : bool
        Whether all candidates go through iterative pruning.
    restarts : int
        Of each search.
    time_budget : float
        Seconds of the wall clock for the whole fit.
    max_params : int, optional
        The most stored numbers that the chosen network may have.
    select : "one_se", "best" or int
        The smallest network within one standard error of the best validation loss, the best, or the best with
        at most so many stored numbers.
    tol : float
        If positive the chosen network is pruned once more, as far as the mean bound on the change of its
        standardised outputs stays within it (`prune_with_bound`).
    validation_fraction : float
        Share of the rows that choose among networks.
    certify_fraction : float
        Share of the rows that nothing else uses, one row at least, for limits on the error of every point of
        the front; 0 sets none aside.
    confidence : float
        Of these limits, all together.
    alpha : float
        The smallest weight decay; 10, 100 and 1000 times as much are tried too.
    autoencoder : NetworkAutoencoder, optional
        A trained one; needed by strategy="autoencoder". A certificate's note says where it was not searched.
    random_state : int or RandomState, optional
        Of splits and starts.
    n_jobs : int, optional
        Threads: they help on large tables, where the time is spent in matrix products.
    verbose : int
        1 prints a line a stage.
    steps : int, optional
        Optimiser iterations of the whole fit in place of `time_budget`; the result then depends on
        `random_state` alone.

    Attributes
    ----------
    classes_
        The labels.
    module_
        The network on raw rows, an nn.Sequential of [Select,] Linear, activation, ..., Linear.
    n_params_
        Its stored numbers.
    n_nonzero_
        Those that are not zero.
    hidden_layer_sizes_
        Neurons of the hidden layers, () for a linear model.
    activations_
        The activation of every neuron, a list a layer.
    used_features_
        The columns that it reads.
    pareto_
        The front, smallest first.
    chosen_
        The point that `module_` is; after a positive `tol` it is none of the front.
    certificate_
        What was measured and bounded, in words and numbers.
    record_
        What the fit wrote; `certificates()` judges it.
    n_features_in_
        Columns of X.
    """

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Fit the front of networks and choose one of them.

        Parameters
        ----------
        X : (n, features) array
            Numbers, in any scale.
        y : (n,) array
            Labels of any type; one class alone gives a constant.
        sample_weight : (n,) array, optional
            Not negative; rows of weight 0 do not count. They weigh in every fit and in the choice of a
            network, not in the searches that only propose shapes.

        Raises
        ------
        ValueError
            A parameter is out of its range, or the data are none that scikit-learn takes.
        """
        budget = self._start()
        X, y = validate_data(self, X, y, dtype=np.float64)
        check_classification_targets(y)
        y = column_or_1d(y, warn=True)
        x, y, weight = self._rows(X, y, sample_weight)
        self.classes_, labels = np.unique(y, return_inverse=True)
        several = len(self.classes_) > 2
        targets = np.eye(len(self.classes_))[labels] if several else labels[:, None].astype(float)
        self._race(x, targets, labels, weight, "softmax" if several else "logistic", budget)
        return self

    def decision_function(self, X: Any) -> Float64[np.ndarray, "n *classes"]:
        """Logits: (n, classes), or (n,) of the second of two classes."""
        found = self._outputs(X)
        return found[:, 0] if found.shape[1] == 1 else found

    def predict_proba(self, X: Any) -> Float64[np.ndarray, "n classes"]:
        """Probabilities of the classes, (n, classes)."""
        check_is_fitted(self)
        f = self._outputs(X)
        if len(self.classes_) == 1:
            return np.ones((len(f), 1))
        if f.shape[1] > 1:
            return np.asarray(softmax(f, axis=1))
        p = expit(f)
        return np.concatenate([1 - p, p], axis=1)

    def predict(self, X: Any) -> np.ndarray:
        """The most probable class of every row, (n,)."""
        check_is_fitted(self)
        f = self._outputs(X)
        if len(self.classes_) == 1:
            return np.full(len(f), self.classes_[0])
        chosen = (f[:, 0] > 0).astype(int) if f.shape[1] == 1 else f.argmax(axis=1)
        return np.asarray(self.classes_[chosen])

    def _targets(self, y: Any) -> Float64[np.ndarray, "n outputs"]:
        y = column_or_1d(y)
        known = np.isin(y, self.classes_)
        if not known.all():
            raise ValueError(f"y must be of classes_, got {y[~known][0]!r}")
        labels = np.searchsorted(self.classes_, y)
        if len(self.classes_) <= 2:
            return np.asarray(labels[:, None], dtype=np.float64)
        return np.asarray(np.eye(len(self.classes_))[labels])


class CompactMLPRegressor(RegressorMixin, CompactMLP):  # type: ignore[misc]
    """The smallest network that predicts numbers well, its size chosen together with its weights.

    Parameters
    ----------
    strategy : str
        "portfolio": dense networks, direct search and, given an autoencoder, search in its embedding share
        the budget (dense networks alone below 10 seconds); "dense", "direct" or "autoencoder": one of these
        alone. The linear and the constant model are always among the candidates.
    max_width, max_depth : int
        Most neurons of a hidden layer, most hidden layers; an autoencoder must not be wider.
    activations : tuple of str
        Distinct ones of `ACTIVATIONS`, those of an autoencoder among them; the direct search chooses for each
        neuron.
    size_penalties : tuple of float
        Weights of the parameter count in the searches, one search each.
    prune : bool
        Whether all candidates go through iterative pruning.
    restarts : int
        Of each search.
    time_budget : float
        Seconds of the wall clock for the whole fit.
    max_params : int, optional
        The most stored numbers that the chosen network may have.
    select : "one_se", "best" or int
        The smallest network within one standard error of the best validation loss, the best, or the best with
        at most so many stored numbers.
    tol : float
        If positive the chosen network is pruned once more, as far as the mean bound on the change of its
        standardised outputs stays within it (`prune_with_bound`).
    validation_fraction : float
        Share of the rows that choose among networks.
    certify_fraction : float
        Share of the rows that nothing else uses, one row at least, for limits on the error of every point of
        the front; 0 sets none aside.
    confidence : float
        Of these limits, all together.
    alpha : float
        The smallest weight decay; 10, 100 and 1000 times as much are tried too.
    autoencoder : NetworkAutoencoder, optional
        A trained one; needed by strategy="autoencoder". A certificate's note says where it was not searched.
    random_state : int or RandomState, optional
        Of splits and starts.
    n_jobs : int, optional
        Threads: they help on large tables, where the time is spent in matrix products.
    verbose : int
        1 prints a line a stage.
    steps : int, optional
        Optimiser iterations of the whole fit in place of `time_budget`; the result then depends on
        `random_state` alone.

    Attributes
    ----------
    module_
        The network on raw rows, an nn.Sequential of [Select,] Linear, activation, ..., Linear.
    n_params_
        Its stored numbers.
    n_nonzero_
        Those that are not zero.
    hidden_layer_sizes_
        Neurons of the hidden layers, () for a linear model.
    activations_
        The activation of every neuron, a list a layer.
    used_features_
        The columns that it reads.
    pareto_
        The front, smallest first.
    chosen_
        The point that `module_` is; after a positive `tol` it is none of the front.
    certificate_
        What was measured and bounded, in words and numbers.
    record_
        What the fit wrote; `certificates()` judges it.
    n_features_in_
        Columns of X.
    """

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Fit the front of networks and choose one of them.

        Parameters
        ----------
        X : (n, features) array
            Numbers, in any scale.
        y : (n,) or (n, outputs) array
            Targets, in any scale; a constant is its own answer.
        sample_weight : (n,) array, optional
            Not negative; rows of weight 0 do not count. They weigh in every fit and in the choice of a
            network, not in the searches that only propose shapes.

        Raises
        ------
        ValueError
            A parameter is out of its range, or the data are none that scikit-learn takes.
        """
        budget = self._start()
        X, y = validate_data(self, X, y, dtype=np.float64, multi_output=True, y_numeric=True)
        x, y, weight = self._rows(X, np.asarray(y, dtype=np.float64), sample_weight)
        self._flat = y.ndim == 1
        self._race(x, y.reshape(len(y), -1), None, weight, "squared", budget)
        return self

    def predict(self, X: Any) -> Float64[np.ndarray, "n *outputs"]:
        """Values in the unit of y: (n,), or (n, outputs) where y was."""
        check_is_fitted(self)
        f = self._outputs(X)
        return f[:, 0] if self._flat else f

    def _targets(self, y: Any) -> Float64[np.ndarray, "n outputs"]:
        y = check_array(y, dtype=np.float64, ensure_2d=False, input_name="y")
        return np.asarray(y.reshape(len(y), -1))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags
