"""Networks of splines as scikit-learn estimators."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

import numpy as np
import sklearn.utils.validation as validation
import torch
from jaxtyping import Float64
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from torch import Tensor

from surefoot._numerics.checks import check_choice, check_number
from surefoot.kan.doors.training import Training, built, trained

Array = Float64[np.ndarray, "..."]
ROWS = 8192
"""So many are predicted at once: a row holds all bases of all its inputs for a while."""


# scikit-learn has no types: to mypy its classes are Any, as are those below.
class _KANEstimator(BaseEstimator):  # type: ignore[misc]
    """What both estimators share; its subclasses say what a target is."""

    def __init__(
        self, hidden: Any = (16,), *, grid_size: int = 5, spline_order: int = 3,
        out_of_grid: str = "linear", lr: float = 0.02, epochs: int = 50, batch_size: int = 64,
        weight_decay: float = 1.0, dtype: str = "float32", kernel: str = "auto",
        random_state: Any = None,
    ) -> None:  # fmt: skip
        self.hidden = hidden
        self.grid_size = grid_size
        self.spline_order = spline_order
        self.out_of_grid = out_of_grid
        self.lr = lr
        self.epochs = epochs
        self.batch_size = batch_size
        self.weight_decay = weight_decay
        self.dtype = dtype
        self.kernel = kernel
        self.random_state = random_state

    def _fit(self, X: Array, y: Tensor, weight: Any, outputs: int) -> None:
        how = Training(
            check_number("lr", self.lr, above=0),
            check_number("epochs", self.epochs, least=1, whole=True),
            check_number("batch_size", self.batch_size, least=1, whole=True),
            check_number("weight_decay", self.weight_decay, least=0),
        )
        if self.hidden is None or isinstance(self.hidden, str):
            raise ValueError(
                f"hidden must be a number of units or one a layer, as 16, (16, 8) or (), got {self.hidden!r}"
            )
        hidden = self.hidden if isinstance(self.hidden, Iterable) else (self.hidden,)
        units = [check_number("hidden", n, least=1, whole=True) for n in hidden]
        dtype = getattr(torch, check_choice("dtype", self.dtype, ("float32", "float64")))
        settings = {
            "grid_size": self.grid_size, "spline_order": self.spline_order, "out_of_grid": self.out_of_grid,
            "kernel": self.kernel,
        }  # fmt: skip
        seed = int(check_random_state(self.random_state).randint(np.iinfo(np.int32).max))
        generator = torch.Generator().manual_seed(seed)
        # A constant teaches nothing: where a new row has another number, that is left out.
        self.x_mean_, self.x_scale_ = _moments(X, weight, constant=np.inf)
        inputs, w = self._tensor(X, dtype), torch.from_numpy(weight).to(dtype)
        model = built([X.shape[1], *units, outputs], inputs, w, generator, settings)
        target = y.to(dtype) if y.is_floating_point() else y
        self.loss_curve_ = trained(model, inputs, target, w, self._loss, how, generator)
        self.loss_, self.n_iter_, self.model_ = self.loss_curve_[-1], how.epochs, model

    def _loss(self, outputs: Tensor, y: Tensor) -> Tensor:
        raise NotImplementedError

    def _tensor(self, X: Array, dtype: torch.dtype) -> Tensor:
        return torch.from_numpy((X - self.x_mean_) / self.x_scale_).to(dtype)

    def _outputs(self, X: Any) -> Array:
        """What the network makes of new rows, in float64: alike for a row alone and among others."""
        validation.check_is_fitted(self)
        rows = self._tensor(_validated(self, X, reset=False, dtype=np.float64), torch.float64)
        model = copy.deepcopy(self.model_).double()
        with torch.no_grad():
            return np.concatenate([model(some).numpy() for some in torch.split(rows, ROWS)])


class KANRegressor(RegressorMixin, _KANEstimator):  # type: ignore[misc]
    """A network of splines as a scikit-learn regressor: least squares, one target or several.

    Inputs and targets are standardised inside, the grids fit the data, training is AdamW with a learning rate
    that falls along half a cosine.

    Parameters
    ----------
    hidden
        Units of each hidden layer; () is a sum of one spline a feature, a generalised additive model.
    grid_size, spline_order, out_of_grid, kernel
        Of every layer, as in `KANLinear`. New rows may lie outside the data's range: there splines go on as
        straight lines by default.
    lr, epochs, batch_size, weight_decay
        Of AdamW. Search for `weight_decay`: no weight exceeds about 1 / weight_decay, so that 0 suits data
        without noise, and 1 data that are mostly noise. A batch as large as the data is all of it: then
        weighting a row is the same as repeating it, up to rounding.
    dtype
        Of training: "float32", or "float64", which the C kernel does not compute. Predictions are float64.
    random_state
        As everywhere in scikit-learn. torch's generators are neither read nor moved.

    Attributes
    ----------
    model_
        The `KAN`, of standardised inputs and for standardised targets.
    x_mean_, x_scale_, y_mean_, y_scale_
        What is taken off, and what is divided by; infinite for a constant feature, which is ignored.
    loss_curve_, loss_, n_iter_
        The mean loss of every epoch, of the last one, and the epochs.
    n_features_in_, feature_names_in_
        As in scikit-learn.
    """

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> KANRegressor:
        """Train on X (n, d) and y (n,) or (n, t).

        Parameters
        ----------
        X, y
            Arrays or data frames of finite numbers.
        sample_weight
            (n,), not negative; rows of weight 0 are left out.

        Raises
        ------
        ValueError
            Data or a setting is out of range.
        NonFiniteError
            Training diverged; choose a smaller `lr`.
        """
        X, y = _validated(self, X, y, dtype=np.float64, multi_output=True, y_numeric=True)
        y = np.asarray(y, dtype=np.float64)
        self._column = y.ndim == 1
        weight, used = _weights(sample_weight, X)
        targets = y.reshape(len(y), -1)[used]
        self.y_mean_, self.y_scale_ = _moments(targets, weight)
        scaled = torch.from_numpy((targets - self.y_mean_) / self.y_scale_)
        self._fit(X[used], scaled, weight, targets.shape[1])
        return self

    def predict(self, X: Any) -> Array:
        """The targets of new rows, (n,) or (n, t) as in `fit`."""
        outputs = self._outputs(X)
        found: Array = outputs * self.y_scale_ + self.y_mean_
        return found[:, 0] if self._column else found

    def _loss(self, outputs: Tensor, y: Tensor) -> Tensor:
        return (outputs - y).square().mean(1)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags


class KANClassifier(ClassifierMixin, _KANEstimator):  # type: ignore[misc]
    """A network of splines as a scikit-learn classifier: cross-entropy, two classes or more.

    Parameters
    ----------
    hidden, grid_size, spline_order, out_of_grid, kernel, lr, epochs, batch_size, weight_decay, dtype
        As in `KANRegressor`.
    random_state
        As in `KANRegressor`.

    Attributes
    ----------
    classes_
        The labels, sorted.
    model_, x_mean_, x_scale_, loss_curve_, loss_, n_iter_, n_features_in_, feature_names_in_
        As in `KANRegressor`; the network has one output a class.
    """

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> KANClassifier:
        """Train on X (n, d) and labels y (n,).

        Parameters
        ----------
        X, y
            Arrays or data frames; X of finite numbers, labels of any sortable kind.
        sample_weight
            (n,), not negative; rows of weight 0 are left out.

        Raises
        ------
        ValueError
            Data or a setting is out of range.
        NonFiniteError
            Training diverged; choose a smaller `lr`.
        """
        X, y = _validated(self, X, y, dtype=np.float64)
        check_classification_targets(y)
        self.classes_, labels = np.unique(y, return_inverse=True)
        weight, used = _weights(sample_weight, X)
        target = torch.from_numpy(np.asarray(labels, dtype=np.int64)[used])
        self._fit(X[used], target, weight, len(self.classes_))
        return self

    def decision_function(self, X: Any) -> Array:
        """Logits (n, classes); of two classes their difference (n,)."""
        found = self._outputs(X)
        return found[:, 1] - found[:, 0] if len(self.classes_) == 2 else found

    def predict_proba(self, X: Any) -> Array:
        """Probabilities (n, classes), in the order of `classes_`."""
        return np.asarray(torch.from_numpy(self._outputs(X)).softmax(1).numpy())

    def predict(self, X: Any) -> Any:
        """The likeliest label of each row."""
        found = self._outputs(X)
        return self.classes_[found.argmax(1)]

    def _loss(self, outputs: Tensor, y: Tensor) -> Tensor:
        return torch.nn.functional.cross_entropy(outputs, y, reduction="none")


def _validated(estimator: Any, *data: Any, **how: Any) -> Any:
    if hasattr(validation, "validate_data"):
        return validation.validate_data(estimator, *data, **how)
    return estimator._validate_data(*data, **how)  # scikit-learn < 1.6


def _weights(given: Any, X: Array) -> tuple[Array, Any]:
    """Positive weights, and which rows have one."""
    weight = validation._check_sample_weight(given, X, dtype=np.float64)
    if (weight < 0).any():
        raise ValueError(f"sample_weight must not be negative, got {weight.min():g}")
    used = weight > 0
    if not used.any():  # which scikit-learn < 1.7 lets through
        raise ValueError("sample_weight must contain at least one non-zero number, got zeros")
    return weight[used], used


def _moments(X: Array, weight: Array, constant: float = 1.0) -> tuple[Array, Array]:
    """Weighted mean and standard deviation of each column, and what stands for that of a constant one."""
    share = (weight / weight.sum())[:, None]
    mean = (share * X).sum(0)
    away = X - mean
    # In units of the largest one: the square of 1e200 is no number, that of 1e-200 is 0.
    peak = np.abs(away).max(0)
    unit = np.where(peak > 0, peak, 1.0)
    scale = unit * np.sqrt((share * (away / unit) ** 2).sum(0))
    flat = scale <= 10 * np.finfo(np.float64).eps * np.abs(X).max(0)
    return mean, np.where(flat, constant, scale)
