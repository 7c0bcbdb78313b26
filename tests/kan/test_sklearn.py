"""The estimators: scikit-learn's own checks, and what it does not ask."""

import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_diabetes, load_digits, make_friedman1
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PolynomialFeatures, StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from surefoot.errors import NonFiniteError
from surefoot.kan import KAN, KANClassifier, KANRegressor
from surefoot.kan.doors.training import weighted_quantile

SMALL = {"hidden": (4,), "grid_size": 3, "epochs": 20, "lr": 0.1, "random_state": 0}
ROUNDING = {
    "check_sample_weight_equivalence_on_dense_data": "a weighted and a repeated row are one up to rounding; "
    "1e-7 asks for dtype='float64', and for a batch_size of all rows"
}


def whole(estimator):
    """One batch a step, in float64: a weighted row is a repeated one."""
    return estimator(**SMALL, dtype="float64", batch_size=1000)


@parametrize_with_checks([whole(KANRegressor)])
def test_scikit_learn_s_checks(estimator, check):
    check(estimator)


@pytest.mark.acceptance
@parametrize_with_checks([whole(KANClassifier)])
def test_scikit_learn_s_checks_of_the_classifier(estimator, check):
    check(estimator)


@pytest.mark.acceptance
@parametrize_with_checks(
    [KANRegressor(random_state=0), KANClassifier(random_state=0)],
    expected_failed_checks=lambda estimator: ROUNDING,
)
def test_scikit_learn_s_checks_at_the_defaults(estimator, check):
    check(estimator)


@pytest.fixture(scope="module")
def smooth():
    return make_friedman1(300, n_features=5, noise=0.1, random_state=0)


@pytest.fixture(scope="module")
def regressor(smooth):
    return KANRegressor(epochs=40, weight_decay=0.5, random_state=0).fit(*smooth)


def test_it_learns(smooth, regressor):
    assert regressor.score(*smooth) > 0.98
    assert regressor.predict(smooth[0]).dtype == np.float64
    assert len(regressor.loss_curve_) == regressor.n_iter_ == 40
    assert regressor.loss_ == regressor.loss_curve_[-1] < 0.02 < regressor.loss_curve_[0]
    assert isinstance(regressor.model_, KAN)


def test_the_same_seed_is_the_same_model_and_no_generator_moves(smooth, regressor):
    X, y = smooth
    torch.manual_seed(5)
    np.random.seed(5)  # noqa: NPY002
    before, legacy = torch.random.get_rng_state(), np.random.get_state()  # noqa: NPY002
    again = clone(regressor).fit(X, y)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert np.array_equal(np.random.get_state()[1], legacy[1])  # noqa: NPY002
    torch.manual_seed(6)
    assert np.array_equal(again.predict(X), regressor.predict(X))
    other = clone(regressor).set_params(random_state=1).fit(X, y)
    assert not np.allclose(other.predict(X), regressor.predict(X))


def test_saved_by_pickle(smooth, regressor):
    again = pickle.loads(pickle.dumps(regressor))
    assert np.array_equal(again.predict(smooth[0]), regressor.predict(smooth[0]))


@pytest.mark.acceptance
@pytest.mark.parametrize("unit", [1e-9, 1.0, 1e9])
def test_units_do_not_matter(smooth, unit):
    X, y = smooth
    plain = KANRegressor(**SMALL).fit(X, y).predict(X)
    scaled = (
        KANRegressor(**SMALL)
        .fit(X * unit + 3 * unit, y * unit - 7 * unit)
        .predict(X * unit + 3 * unit)
    )
    assert np.allclose(scaled / unit + 7, plain, atol=1e-3)


def test_targets_of_one_two_and_no_columns(smooth):
    X, y = smooth
    two = KANRegressor(**SMALL).fit(X, np.stack([y, -y], 1))
    assert two.predict(X).shape == (300, 2)
    assert two.score(X, np.stack([y, -y], 1)) > 0.9
    assert KANRegressor(**SMALL).fit(X, y[:, None]).predict(X).shape == (300, 1)
    assert KANRegressor(**SMALL).fit(X, y).predict(X).shape == (300,)


def test_constant_columns_and_targets():
    X = np.hstack([np.full((30, 1), 1e8), np.linspace(0, 1, 30)[:, None]])
    fitted = KANRegressor(**SMALL).fit(X, np.full(30, 4.0))
    assert np.allclose(fitted.predict(X), 4, atol=0.2)
    assert np.isfinite(KANRegressor(**SMALL).fit(X, X[:, 1]).predict(X + 5)).all()


@pytest.mark.acceptance
def test_a_sum_of_splines_without_hidden_units():
    rng = np.random.default_rng(0)
    X = rng.uniform(-1, 1, (400, 2))
    y = np.sin(3 * X[:, 0]) + X[:, 1] ** 2
    fitted = KANRegressor((), lr=0.05, weight_decay=0, random_state=0).fit(X, y)
    assert len(fitted.model_) == 1
    assert fitted.score(X, y) > 0.99
    # Of such a model each edge is one term, and there is no third.
    assert (
        KANRegressor((), lr=0.05, weight_decay=0, random_state=0)
        .fit(X, X[:, 0] * X[:, 1])
        .score(X, y)
        < 0.5
    )


@pytest.mark.filterwarnings("ignore::surefoot.kan.OutOfGridWarning")
def test_beyond_the_data_it_goes_on_in_a_straight_line():
    X = np.linspace(0, 1, 200)[:, None]
    fitted = KANRegressor((), lr=0.1, weight_decay=0, random_state=0).fit(X, 2 * X[:, 0])
    # Splines do so exactly, SiLU beside them nearly.
    assert np.allclose(fitted.predict([[1.8], [1.4], [1.02]]), [3.6, 2.8, 2.04], rtol=0.1)
    zero = clone(fitted).set_params(out_of_grid="zero").fit(X, 2 * X[:, 0])
    assert not np.allclose(zero.predict([[1.8], [1.4]]), [3.6, 2.8], rtol=0.1)


def test_weights(smooth):
    X, y = smooth
    w = np.r_[np.ones(150), np.zeros(150)]
    with_zeros = KANRegressor(**SMALL).fit(X, y, sample_weight=w)
    without = KANRegressor(**SMALL).fit(X[:150], y[:150])
    assert np.array_equal(with_zeros.predict(X), without.predict(X))
    assert np.allclose(
        KANRegressor(**SMALL).fit(X, y, w * 7).predict(X), without.predict(X), atol=1e-4
    )
    for wrong, words in ((-w, "not be negative, got -1"), (0 * w, "at least one non-zero")):
        with pytest.raises(ValueError, match=words):
            KANRegressor(**SMALL).fit(X, y, sample_weight=wrong)


def test_a_quantile_counts_a_weighted_row_as_repeated_rows():
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.normal(size=(50, 3)))
    w = torch.from_numpy(rng.integers(1, 5, 50))
    repeated = x.repeat_interleave(w, 0)
    one = torch.ones(len(repeated), dtype=torch.float64)
    for q in (0.0, 0.001, 0.2, 0.5, 0.999, 1.0):
        got = weighted_quantile(x, w.double(), q)
        assert torch.equal(got, weighted_quantile(repeated, one, q))
        wanted = np.quantile(repeated.numpy(), q, axis=0, method="inverted_cdf")
        assert np.array_equal(got.numpy(), wanted)


@pytest.mark.acceptance
def test_data_frames_pipelines_and_searches(smooth):
    X, y = smooth
    frame = pd.DataFrame(X, columns=list("abcde"))
    fitted = KANRegressor(**SMALL).fit(frame, pd.Series(y))
    assert list(fitted.feature_names_in_) == list("abcde")
    assert fitted.n_features_in_ == 5
    with pytest.raises(ValueError, match="feature names"):
        fitted.predict(frame[list("bacde")])
    pipe = make_pipeline(StandardScaler(), PolynomialFeatures(2), KANRegressor(**SMALL))
    search = GridSearchCV(pipe, {"kanregressor__hidden": [(), (2,)]}, cv=2).fit(frame, y)
    assert search.best_params_["kanregressor__hidden"] in [(), (2,)]
    assert len(cross_val_score(KANRegressor(**SMALL), X, y, cv=2)) == 2


def test_labels_and_probabilities():
    X, y = load_digits(return_X_y=True)
    X, y = X[:400], np.array(list("abcdefghij"))[y[:400]]
    fitted = KANClassifier(epochs=8, lr=0.02, random_state=0).fit(X, y)
    p = fitted.predict_proba(X)
    assert np.allclose(p.sum(1), 1, atol=1e-12)
    assert list(fitted.classes_) == list("abcdefghij")
    assert (fitted.classes_[p.argmax(1)] == fitted.predict(X)).all()
    assert fitted.score(X, y) > 0.95
    two = y < "f"
    binary = KANClassifier(**SMALL).fit(X, two)
    logit = binary.decision_function(X)
    assert logit.shape == (400,)
    assert np.allclose(1 / (1 + np.exp(-logit)), binary.predict_proba(X)[:, 1])
    assert ((logit > 0) == binary.predict(X)).all()


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"hidden": (0,)}, "hidden must be a whole number"),
        ({"hidden": (2.5,)}, "hidden must be a whole number"),
        ({"hidden": "ab"}, "hidden must be a number"),
        ({"lr": 0}, "lr must be positive"),
        ({"epochs": 0}, "epochs must be"),
        ({"batch_size": 0}, "batch_size must be"),
        ({"weight_decay": -1}, "weight_decay must be"),
        ({"dtype": "float16"}, "dtype must be one of 'float32', 'float64'"),
        ({"grid_size": 0}, "grid_size must be"),
        ({"spline_order": 6}, "spline_order must be"),
        ({"out_of_grid": "no"}, "out_of_grid must be"),
        ({"kernel": "no"}, "kernel must be"),
    ],
)
@pytest.mark.parametrize("estimator", [KANRegressor, KANClassifier])
def test_settings_out_of_range(estimator, wrong, words):
    with pytest.raises(ValueError, match=words):
        estimator(**{**SMALL, **wrong}).fit(np.eye(4), [0, 1, 0, 1])


def test_divergence_is_told(smooth):
    X, y = smooth
    with pytest.raises(NonFiniteError, match="at step"):
        KANRegressor(hidden=(4, 4), lr=1e30, epochs=2, random_state=0).fit(X, y)


def test_before_fit():
    for method in ("predict", "predict_proba", "decision_function"):
        with pytest.raises(NotFittedError):
            getattr(KANClassifier(), method)(np.eye(2))


@pytest.mark.acceptance
def test_real_data():
    X, y = load_diabetes(return_X_y=True)
    assert cross_val_score(KANRegressor(random_state=0), X, y, cv=5).mean() > 0.4
    X, y = load_digits(return_X_y=True)
    train, test, a, b = train_test_split(X, y, random_state=0)
    assert KANClassifier((32,), random_state=0).fit(train, a).score(test, b) > 0.96
