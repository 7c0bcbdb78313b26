"""What both estimators share: the race, the front, the choice, and what is certified of it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, Literal, Self

import numpy as np
from jaxtyping import Float64
from joblib import effective_n_jobs
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from surefoot._numerics.checks import check_choice, check_number
from surefoot.architecture import exporting
from surefoot.architecture._estimator.certifying import (
    certificates_of,
    chosen_summary,
    summary,
)
from surefoot.architecture._estimator.points import checked_rows, make_point
from surefoot.architecture._estimator.problem import problem
from surefoot.architecture._estimator.recording import Measuring, elapsed, record_of
from surefoot.architecture._estimator.searches import shares_of
from surefoot.architecture._estimator.settings import Checked, cap, checked
from surefoot.architecture._estimator.tolerance import pruned_within
from surefoot.architecture._fit.budget import Budget
from surefoot.architecture._fit.objective import Task
from surefoot.architecture._fit.portfolio import Settings, race
from surefoot.architecture.compaction import network_of
from surefoot.architecture.folding import folded_module, run_module
from surefoot.architecture.guarantee import EXACT
from surefoot.architecture.pareto import choose
from surefoot.certificate import Certificate
from surefoot.errors import warn
from surefoot.record import Record

FORMATS = ("torch", "numpy", "c", "sklearn")
Array = Float64[np.ndarray, "..."]


class CompactMLP(BaseEstimator):  # type: ignore[misc]
    """Fits a front of compact networks and chooses one; see the two estimators."""

    # Another clock than the wall's, for comparisons at equal CPU time.
    _clock: Callable[[], float] | None = None

    def __init__(
        self,
        *,
        strategy: str = "portfolio",
        max_width: int = 16,
        max_depth: int = 2,
        activations: tuple[str, ...] = ("tanh", "relu"),
        size_penalties: tuple[float, ...] = (0.003, 0.03, 0.15, 0.6),
        prune: bool = True,
        restarts: int = 8,
        time_budget: float = 20.0,
        max_params: int | None = None,
        select: str | int = "one_se",
        tol: float = 0.0,
        validation_fraction: float = 0.2,
        certify_fraction: float = 0.0,
        confidence: float = 0.95,
        alpha: float = 1e-4,
        autoencoder: Any = None,
        random_state: Any = None,
        n_jobs: int | None = 1,
        verbose: int = 0,
        steps: int | None = None,
    ) -> None:
        self.strategy = strategy
        self.max_width = max_width
        self.max_depth = max_depth
        self.activations = activations
        self.size_penalties = size_penalties
        self.prune = prune
        self.restarts = restarts
        self.time_budget = time_budget
        self.max_params = max_params
        self.select = select
        self.tol = tol
        self.validation_fraction = validation_fraction
        self.certify_fraction = certify_fraction
        self.confidence = confidence
        self.alpha = alpha
        self.autoencoder = autoencoder
        self.random_state = random_state
        self.n_jobs = n_jobs
        self.verbose = verbose
        self.steps = steps

    def _start(self) -> Budget:
        self._checked = checked(self)
        seconds, steps = self._checked.seconds, self._checked.steps
        if self._clock is None:
            return Budget(seconds, steps)
        return Budget(seconds, steps, clock=self._clock)

    def _rows(self, x: Array, y: np.ndarray, weight: Any) -> tuple[Array, np.ndarray, Array]:
        """The rows that count, with their weights."""
        w = _check_sample_weight(weight, x, dtype=np.float64)
        if (w < 0).any():
            raise ValueError("Negative values in data passed to `sample_weight`")
        if not w.any():
            raise ValueError("sample_weight must be positive somewhere, got zeros only")
        # Only their ratios count, and the sum of the largest floats is infinite.
        counts = w > 0
        return x[counts], y[counts], w[counts] / w.max()

    def _race(
        self,
        x: Array,
        y: Array,
        labels: np.ndarray | None,
        weight: Array,
        task: Task,
        budget: Budget,
    ) -> None:
        how: Checked = self._checked
        seed = int(check_random_state(self.random_state).randint(np.iinfo(np.int32).max))
        table = problem(
            x, y, labels, weight, task, validation_fraction=how.validation_fraction,
            certify_fraction=how.certify_fraction, seed=seed,
        )  # fmt: skip
        dense, searches = shares_of(how, seed)
        settings = Settings(
            how.max_width, how.max_depth, how.activations, how.alpha, how.prune,
            effective_n_jobs(how.n_jobs),
        )  # fmt: skip
        constant = not (y != y[0]).any()
        judged = table.rows(table.validation)
        found = race(
            table.rows(table.training), judged,
            np.flatnonzero(table.by.varies) if not constant else np.zeros(0, np.int64), settings,
            budget, np.random.default_rng(seed), searches, dense, self._tell,
        )  # fmt: skip
        rows = checked_rows(table)
        claims = len(found) + (how.tol > 0)
        points = [make_point(c, table, judged, how.confidence, claims, rows) for c in found]
        measure = Measuring(table, rows, how)
        self._measured = [
            measure(c, p, p.folding_deviation) for c, p in zip(found, points, strict=True)
        ]
        at = choose(points, how.select, how.max_params)
        chosen, point = found[at], points[at]
        if how.tol > 0:
            chosen, at = pruned_within(chosen, table, how.tol), len(points)
            point = make_point(chosen, table, judged, how.confidence, claims, rows)
        module, off = folded_module(chosen.network, table.by, x[table.training])
        if module[-1].weight.dtype != point.module[-1].weight.dtype:  # on all rows, not on some
            point = make_point(chosen, table, judged, how.confidence, claims, table.training)
        # The point itself, or one more: all of them share the confidence.
        points[at:], self._measured[at:] = (
            [point, *points[at + 1 :]],
            [measure(chosen, point, off), *self._measured[at + 1 :]],
        )
        self._points, self._claimed = points[: len(found)], points
        self._seconds, self._budget = elapsed(budget), budget
        self._common = summary(how, table, points, self._seconds)
        self._choose(at)
        if off > EXACT:
            warn(self.certificate_["notes"][-1], UserWarning)

    def _tell(self, line: str) -> None:
        if self.verbose:
            print(f"[{type(self).__name__}] {line}")

    def _choose(self, at: int) -> None:
        point, measured = self._claimed[at], self._measured[at]
        self.chosen_, self.module_ = point, point.module
        self.n_params_, self.n_nonzero_ = point.n_params, point.n_nonzero
        self.hidden_layer_sizes_ = point.widths
        self.activations_ = [list(names) for names in point.activations]
        self.used_features_ = network_of(point.module).inputs
        self.pareto_ = list(self._points)
        self.record_ = record_of(
            measured,
            self._claimed,
            self._seconds,
            self._budget,
            self._common["autoencoder"],
        )
        self.certificate_ = chosen_summary(self._common, point, measured)

    def _outputs(self, X: Any) -> Float64[np.ndarray, "n outputs"]:
        """module_ on raw rows."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float64, reset=False)
        return self._finite(run_module(self.module_, X), X)

    def _finite(self, found: Array, X: Array) -> Array:
        if not np.isfinite(found).all():
            row = int(np.flatnonzero(~np.isfinite(found).all(axis=1))[0])
            raise ValueError(
                f"the outputs of row {row} of X are not finite in {self.certificate_['dtype']}, the dtype of "
                f"module_; its largest entry is {np.abs(X[row]).max():.3g}"
            )
        return found

    @property
    def record(self) -> Record:
        """What the fit wrote: numbers and facts."""
        check_is_fitted(self)
        return self.record_

    def at(self, max_params: int | None = None, *, max_nonzero: int | None = None) -> Self:
        """The point of best validation loss within the caps, as a fitted estimator; nothing is fitted again.

        Parameters
        ----------
        max_params : int, optional
            Most stored numbers.
        max_nonzero : int, optional
            Most numbers that are not zero.

        Raises
        ------
        ValueError
            No point is so small; the message names the smallest.
        """
        check_is_fitted(self)
        most, nonzero = cap("max_params", max_params), cap("max_nonzero", max_nonzero)
        found = copy.copy(self)
        found._choose(choose(self._points, "best", most, nonzero))
        return found

    def export(self, format: Literal["torch", "numpy", "c", "sklearn"] = "torch") -> Any:
        """The network in another form, its standardisation in it.

        Parameters
        ----------
        format : "torch", "numpy", "c" or "sklearn"
            A copy of `module_`; a function f(X) of NumPy arrays without torch; the text of
            `static void surefoot_predict(const double *x, double *out)`, x being all `n_features_in_` raw
            inputs; an MLPClassifier or MLPRegressor, whose `predict` gives (n,) for one output.

        Returns
        -------
        Module, callable, str or estimator
            Its outputs are those of `module_`: logits of a classifier, values of a regressor; scikit-learn's
            predicts.

        Raises
        ------
        ValueError
            The format is unknown, or scikit-learn has no such network.
        """
        check_is_fitted(self)
        check_choice("format", format, FORMATS)
        if format == "torch":
            return copy.deepcopy(self.module_)
        if format == "numpy":
            return exporting.export_numpy(self.module_, self.n_features_in_)
        if format == "c":
            return exporting.export_c(self.module_)
        found = exporting.export_sklearn(
            self.module_, self.n_features_in_, getattr(self, "classes_", None)
        )
        if hasattr(self, "feature_names_in_"):
            found.feature_names_in_ = self.feature_names_in_
        return found

    def certificates(
        self, X: Any = None, y: Any = None, confidence: float = 0.99
    ) -> list[Certificate]:
        """What was promised of this fit and what was measured, 3.3 to 3.7; given fresh rows 3.5 and 3.6 too.

        Parameters
        ----------
        X : (n, features) array, optional
            Rows that the fit has not seen, against which the limits on new rows are held.
        y : (n,) or (n, outputs) array, optional
            Their labels or targets.
        confidence : float
            Of the lower limits that are taken on them.

        Raises
        ------
        ValueError
            One of X and y alone, numbers that are not finite, another number of rows or outputs, or a label
            that the fit does not know.
        """
        check_is_fitted(self)
        confidence = check_number("confidence", confidence, above=0, below=1)
        if (X is None) != (y is None):
            raise ValueError("give both X and y, or neither")
        rows = None
        if X is not None:
            x = validate_data(self, X, dtype=np.float64, reset=False)
            targets = self._targets(y)
            outputs = self.module_[-1].out_features
            if targets.shape != (len(x), outputs):
                raise ValueError(
                    f"y must have {len(x)} rows as X has, and the fit's number of outputs, {outputs}; got "
                    f"{targets.shape[0]} and {targets.shape[1]}"
                )
            self._finite(run_module(self.module_, x), x)
            rows = (x, targets)
        return certificates_of(self, rows, confidence)

    def _targets(self, y: Any) -> Float64[np.ndarray, "n outputs"]:
        raise NotImplementedError
