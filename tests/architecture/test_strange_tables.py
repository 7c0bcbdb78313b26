"""Tables that are strange: what is fitted to them says so, or they are refused by name."""

import copy
import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tests.architecture.tables import table

from surefoot import Verdict
from surefoot.architecture import (
    CompactMLPClassifier,
    CompactMLPRegressor,
    MLPSpace,
    NetworkAutoencoder,
)
from surefoot.architecture._fit.budget import Budget
from surefoot.architecture._fit.objective import Rows
from surefoot.architecture._fit.portfolio import Settings, _linear
from surefoot.architecture._fit.searched import Searched
from surefoot.architecture.guarantee import CHANGE, FOLDING
from surefoot.architecture.guarantee import certified as certified_

RNG = np.random.default_rng(0)
X = RNG.standard_normal((80, 3))
DENSE = {"strategy": "dense", "steps": 60, "random_state": 0}


@pytest.fixture(scope="module")
def certified():
    """A fit with a front, certification rows and one more pruned point."""
    y = X[:, 0] + np.tanh(2 * X[:, 1])
    return CompactMLPRegressor(certify_fraction=0.25, tol=0.3, **DENSE).fit(X, y), y


@pytest.fixture(scope="module")
def decoder():
    return NetworkAutoencoder(MLPSpace(2, 1, 4, 2, ("tanh", "relu")), 8).fit(steps=10)


def test_each_point_has_its_own_record_and_certificate(certified):
    model, _ = certified
    seen = set()
    for point in model.pareto_:
        each = model.at(max_params=point.n_params, max_nonzero=point.n_nonzero)
        assert each.certificate_["n_params"] == each.n_params_ == point.n_params
        assert each.certificate_["source"] == point.source
        assert each.record_[FOLDING][0, 0] == each.certificate_["folding_deviation"]
        assert all(c.verdict is not Verdict.BROKEN for c in each.certificates())
        seen.add(each.record_[CHANGE].shape[1] if CHANGE in each.record_ else 0)
    assert len(seen) > 1  # networks of several pruning steps, and of none
    assert model.certificate_["n_params"] == model.n_params_  # the other is untouched


def test_the_point_that_tol_adds_is_certified_too(certified):
    model, y = certified
    record = model.record_
    assert (
        record[certified_("90% absolute error")].shape[1]
        == model.certificate_["points"]
        == len(model.pareto_) + 1
    )
    found = {c.name: c for c in model.certificates(X, y)}
    assert any(name.startswith("3.5") for name in found)


def test_limits_are_compared_with_rows_that_fit(certified):
    model, y = certified
    for args, words in (
        ((X, y[:-1]), "y must have 80 rows"),
        ((X, np.stack([y, y], axis=1)), "number of outputs, 1"),
        ((X, np.where(y > 0, np.nan, y)), "NaN"),
        ((X,), "both X and y"),
        ((X, y, 1.0), "confidence"),
    ):
        with pytest.raises(ValueError, match=words):
            model.certificates(*args)


def test_weights_count_by_their_ratios_however_large():
    y = X[:, 0]
    w = np.where(X[:, 1] > 0, 2.0, 1.0)
    one = CompactMLPRegressor(**DENSE).fit(X, y, w).predict(X)
    assert np.array_equal(one, CompactMLPRegressor(**DENSE).fit(X, y, 5e307 * w).predict(X))


def test_at_least_one_row_is_certified_and_one_is_left():
    y = X[:, 0]
    model = CompactMLPRegressor(certify_fraction=0.001, **DENSE).fit(X, y)
    assert model.certificate_["rows"]["certification"] == 1
    assert "not certifiable" in " ".join(model.certificate_["notes"])
    assert model.pareto_[0].cert_bound == np.inf
    hundred = RNG.standard_normal((100, 1))
    found = CompactMLPRegressor(certify_fraction=0.29, **DENSE).fit(hundred, hundred[:, 0])
    assert found.certificate_["rows"]["certification"] == 29
    with pytest.raises(ValueError, match="certify_fraction = 0.9 leaves none of 1 rows"):
        CompactMLPRegressor(certify_fraction=0.9, **DENSE).fit(X[:1], y[:1])


def test_outputs_that_are_not_finite_are_refused_and_not_returned():
    wild = X.copy()
    wild[7] = 1e200
    for model, y in (
        (CompactMLPRegressor(**DENSE), X[:, 0] + X[:, 1]), (CompactMLPClassifier(**DENSE), X[:, 0] > 0),
    ):  # fmt: skip
        model.fit(X, y)
        linear = next(p for p in model.pareto_ if p.source == "linear" and p.n_nonzero > 1)
        small = model.at(max_params=linear.n_params, max_nonzero=linear.n_nonzero)
        assert small.module_[-1].weight.dtype == torch.float32
        with pytest.raises(ValueError, match="the outputs of row 7 of X are not finite in float32"):
            small.predict(wild)


def test_a_column_too_far_from_0_is_warned_of():
    far = X.copy()
    far[:, 0] = 1e15 + np.round(20 * X[:, 0])
    with pytest.warns(UserWarning, match="subtract a constant from it"):
        model = CompactMLPRegressor(**DENSE, select="best").fit(far, X[:, 0])
    assert model.certificate_["folding_deviation"] > 1e-5
    verdicts = {c.name[:3]: c.verdict for c in model.certificates()}
    assert Verdict.BROKEN in verdicts.values()


def test_a_start_that_no_iteration_improves_reads_nothing():
    """Validation rows say the opposite of the training rows: the linear model stays at its zeros."""
    x, even = X.T, np.full(80, 1 / 80)
    train, validation = (
        Rows(x, (sign * x[:1] > 0).astype(float), even, "logistic") for sign in (1, -1)
    )
    settings = Settings(4, 1, ("tanh",), 1e-4, prune=False, threads=1)
    found = list(_linear(train, validation, np.arange(3), settings, Budget(None, 400)))
    assert found
    for c in found:
        assert (c.network.weights[0] != 0).any(axis=0).all()
        assert c.val_loss == pytest.approx(np.log(2))


def test_an_autoencoder_is_searched_in_or_the_certificate_says_why(decoder):
    y = X[:, 0] * X[:, 1]
    found = CompactMLPRegressor(
        strategy="autoencoder", autoencoder=decoder, steps=120, random_state=0, restarts=2,
        size_penalties=(0.003,), select="best",
    ).fit(X, y)  # fmt: skip
    assert {p.source for p in found.pareto_} <= {"constant", "linear", "autoencoder"}
    assert any(p.source == "autoencoder" for p in found.pareto_)
    assert found.record_.fact("autoencoder", of="search").all == (decoder.digest(),)
    assert found.certificate_["notes"] == []
    assert pickle.loads(pickle.dumps(found)).score(X, y) == found.score(X, y)
    again = clone(found).fit(X, y)
    assert np.array_equal(again.predict(X), found.predict(X))
    for strategy, words in (("dense", 'strategy is "dense"'), ("direct", 'strategy is "direct"')):
        other = clone(found).set_params(strategy=strategy, steps=40).fit(X, y)
        assert other.certificate_["notes"] == [f"autoencoder was not searched in: {words}"]
        assert other.record_.fact("autoencoder", of="search").all == ()
    short = clone(found).set_params(strategy="portfolio", steps=None, time_budget=0.03).fit(X, y)
    assert "time_budget is below 10 seconds" in short.certificate_["notes"][0]


def test_a_real_table_through_a_decoder_of_another_shape(decoder):
    """Thirteen columns and three classes, by a decoder of two inputs and one output."""
    x, x_test, y, y_test = table("wine")
    model = CompactMLPClassifier(
        strategy="autoencoder", autoencoder=decoder, steps=150, random_state=0, restarts=2,
        size_penalties=(0.003,), prune=False,
    ).fit(x, y)  # fmt: skip
    assert model.certificate_["autoencoder"] == decoder.digest()
    assert model.score(x_test, y_test) > 0.9
    assert {p.source for p in model.pareto_} <= {"constant", "linear", "autoencoder"}
    assert model.export("numpy")(x_test).shape == (len(x_test), 3)


def test_an_autoencoder_decodes_what_is_allowed(decoder):
    settings = {"strategy": "autoencoder", "autoencoder": decoder, "steps": 80, "random_state": 0}
    with pytest.raises(ValueError, match="max_width must be at least the 4 neurons"):
        CompactMLPRegressor(max_width=3, **settings).fit(X, X[:, 0])
    with pytest.raises(ValueError, match="activations must have those .*: relu"):
        CompactMLPRegressor(activations=("tanh",), **settings).fit(X, X[:, 0])
    flat = CompactMLPRegressor(max_depth=1, restarts=2, **settings).fit(X, X[:, 0] * X[:, 1])
    assert max(p.depth for p in flat.pareto_) <= 1


@pytest.mark.parametrize("absent", [0, 1, 2])
def test_a_class_without_a_training_row_does_not_stop_a_search(absent):
    """Its output is its own, and the others are found."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 120))
    first, second = (k for k in range(3) if k != absent)
    labels = np.where(x[0] > 0, first, second)
    rows = Rows(x, np.eye(3)[labels].T, np.full(120, 1 / 120), "softmax")
    search = Searched("direct", None, 4, 1, ("tanh",), (0.003,), 2, 1e-4, 0)
    found = list(search(rows, rows, np.arange(2), Budget(None, 100)))
    assert found
    best = min(found, key=lambda c: c.val_loss).network
    assert np.mean(best.layers(x[best.inputs])[-1].argmax(axis=0) == labels) > 0.95


def test_frames_pipelines_grids_copies():
    frame = pd.DataFrame(X, columns=["a", "b", "c"])
    y = pd.Series(np.where(X[:, 0] > 0, "up", "down"))
    model = CompactMLPClassifier(**DENSE).fit(frame, y)
    assert model.feature_names_in_.tolist() == ["a", "b", "c"]
    other = model.export("sklearn")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert (other.predict(frame) == model.predict(frame)).all()
    with pytest.raises(ValueError, match="feature names"):
        model.predict(frame[["b", "a", "c"]])
    pipeline = make_pipeline(StandardScaler(), CompactMLPClassifier(**DENSE))
    grid = GridSearchCV(pipeline, {"compactmlpclassifier__max_width": [2, 4]}, cv=2).fit(X, y)
    assert grid.best_score_ > 0.8
    for same in (copy.deepcopy(grid), pickle.loads(pickle.dumps(grid))):
        assert (same.predict(X) == grid.predict(X)).all()


@pytest.mark.parametrize(
    ("y", "words"),
    [
        (np.where(X[:, 0] > 1, np.nan, X[:, 0]), "y contains NaN"),
        (np.where(X[:, 0] > 1, np.inf, X[:, 0]), "y contains infinity"),
        (np.where(X[:, 0] > 0, 1e308, 0.0), "y must be at most"),
        (X[:, 0] * 1e-300, "column 0 of y must vary"),
        (np.where(X[:, 0] > 0, "a", "b"), "could not convert string"),
    ],
)  # fmt: skip
def test_targets_that_no_network_can_have(y, words):
    with pytest.raises(ValueError, match=words):
        CompactMLPRegressor(**DENSE).fit(X, y)


def test_targets_in_millions_are_fitted_as_well():
    y = X[:, 0] + np.tanh(2 * X[:, 1])
    one = CompactMLPRegressor(**DENSE).fit(X, y)
    million = CompactMLPRegressor(**DENSE).fit(X, 1e6 * y + 1e8)
    assert abs(one.score(X, y) - million.score(X, 1e6 * y + 1e8)) < 1e-3
    assert million.predict(X).std() > 1e5
