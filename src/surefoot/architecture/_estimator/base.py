"""What both estimators share: the race, the front, the choice, and what is certified of it."""

from __future__ import annotations

import copy
from typing import Any, Literal, Self

import numpy as np
from jaxtyping import Float64
from joblib import effective_n_jobs
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from surefoot._numerics.checks import check_choice
from surefoot.architecture import exporting
from surefoot.architecture._estimator import recording
from surefoot.architecture._estimator.certifying import certificates_of, summary
from surefoot.architecture._estimator.points import checked_rows, make_point
from surefoot.architecture._estimator.problem import Problem, problem
from surefoot.architecture._estimator.searches import shares_of
from surefoot.architecture._estimator.settings import Checked, cap, checked
from surefoot.architecture._estimator.tolerance import pruned_within
from surefoot.architecture._fit.budget import Budget
from surefoot.architecture._fit.objective import Task
from surefoot.architecture._fit.portfolio import Settings, race
from surefoot.architecture.compaction import network_of
from surefoot.architecture.folding import folded_module, run_module
from surefoot.architecture.pareto import ParetoPoint, choose
from surefoot.certificate import Certificate
from surefoot.record import Record

FORMATS = ("torch", "numpy", "c", "sklearn")
Array = Float64[np.ndarray, "..."]


class CompactMLP(BaseEstimator):  # type: ignore[misc]
    """Fits a front of compact networks and chooses one; see the two estimators."""

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
        return Budget(self._checked.seconds, self._checked.steps)

    def _rows(self, x: Array, y: np.ndarray, weight: Any) -> tuple[Array, np.ndarray, Array]:
        """The rows that count, with their weights."""
        w = _check_sample_weight(weight, x, dtype=np.float64)
        if (w < 0).any():
            raise ValueError("Negative values in data passed to `sample_weight`")
        counts = w > 0
        if not counts.any():
            raise ValueError("sample_weight must be positive somewhere, got zeros only")
        return x[counts], y[counts], w[counts]

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
            effective_n_jobs(self.n_jobs),
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
        self._points = [make_point(c, table, judged, how.confidence, claims, rows) for c in found]
        at = choose(self._points, how.select, how.max_params)
        chosen, point = found[at], self._points[at]
        if how.tol > 0:
            chosen = pruned_within(chosen, table, how.tol)
            point = make_point(chosen, table, judged, how.confidence, claims, rows)
        module, off = folded_module(chosen.network, table.by, x[table.training])
        if module[-1].weight.dtype != point.module[-1].weight.dtype:  # on all rows, not on some
            point = make_point(chosen, table, judged, how.confidence, claims, table.training)
        if how.tol == 0:
            self._points[at] = point
        self._choose(point)
        self._write(table, chosen, point, rows, off, budget)

    def _write(
        self, table: Problem, chosen: Any, point: ParetoPoint, rows: np.ndarray, off: float,
        budget: Budget,
    ) -> None:  # fmt: skip
        how, record = self._checked, Record()
        sliced = recording.record_exactness(record, chosen, table, rows, off)
        recording.record_pruning(record, chosen, table)
        recording.record_limits(record, self._points)
        found = None
        if table.task != "squared":
            found = recording.occam(
                point, table, how.max_width, how.max_depth, len(how.activations), how.confidence
            )
            recording.record_occam(record, found[0])
        seconds = recording.record_time(record, budget)
        self.record_ = record
        self.certificate_ = summary(how, table, self._points, point, sliced, off, found, seconds)

    def _tell(self, line: str) -> None:
        if self.verbose:
            print(f"[{type(self).__name__}] {line}")

    def _choose(self, point: ParetoPoint) -> None:
        self.chosen_, self.module_ = point, point.module
        self.n_params_, self.n_nonzero_ = point.n_params, point.n_nonzero
        self.hidden_layer_sizes_ = point.widths
        self.activations_ = [list(names) for names in point.activations]
        self.used_features_ = network_of(point.module).inputs
        self.pareto_ = list(self._points)

    def _outputs(self, X: Any) -> Float64[np.ndarray, "n outputs"]:
        """module_ on raw rows."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float64, reset=False)
        return run_module(self.module_, X)

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
        point = self._points[choose(self._points, "best", most, nonzero)]
        found = copy.copy(self)
        found._choose(point)
        return found

    def export(self, format: Literal["torch", "numpy", "c", "sklearn"] = "torch") -> Any:
        """The network in another form, its standardisation in it.

        Parameters
        ----------
        format : "torch", "numpy", "c" or "sklearn"
            A copy of `module_`; a function f(X) of NumPy arrays without torch; the text of
            `static void surefoot_predict(const double *x, double *out)`, x being all `n_features_in_` raw
            inputs; an MLPClassifier or MLPRegressor.

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
        return exporting.export_sklearn(
            self.module_, self.n_features_in_, getattr(self, "classes_", None)
        )

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
            One of X and y alone, or a label that the fit does not know.
        """
        check_is_fitted(self)
        if (X is None) != (y is None):
            raise ValueError("give both X and y, or neither")
        rows = None
        if X is not None:
            x = validate_data(self, X, dtype=np.float64, reset=False)
            rows = (x, self._targets(y))
        return certificates_of(self, rows, confidence)

    def _targets(self, y: Any) -> Float64[np.ndarray, "n outputs"]:
        raise NotImplementedError
