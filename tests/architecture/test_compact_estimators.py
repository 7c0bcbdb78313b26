"""The estimators: counts, the front and its choice, repeatable fits, edge cases, bad input."""

import copy
import itertools
import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import make_friedman1
from tests.architecture.tables import table
from torch import nn

from surefoot.architecture import (
    CompactMLPClassifier,
    CompactMLPRegressor,
    Select,
    build_module,
    module_spec,
)

RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def friedman():
    X, y = make_friedman1(200, n_features=7, noise=0.3, random_state=0)
    return X, y, CompactMLPRegressor(steps=400, random_state=0, strategy="dense").fit(X, y)


@pytest.fixture(scope="module")
def wine():
    X, _, y, _ = table("wine")
    names = np.array(["red", "rose", "white"])[y]
    model = CompactMLPClassifier(steps=250, random_state=0, certify_fraction=0.2, restarts=2)
    return X, names, model.fit(X, names)


def counted(model):
    """Stored and non-zero numbers, and the formula of the dense module."""
    parameters = list(model.module_.parameters())
    sizes = [len(model.used_features_), *model.hidden_layer_sizes_, parameters[-1].numel()]
    formula = sum((a + 1) * b for a, b in itertools.pairwise(sizes))
    stored = sum(p.numel() for p in parameters)
    return stored, sum(int((p != 0).sum()) for p in parameters), formula


def test_every_point_counts_what_it_stores(friedman, wine):
    for _, _, model in (friedman, wine):
        for point in model.pareto_:
            each = model.at(max_params=point.n_params, max_nonzero=point.n_nonzero)
            stored, nonzero, formula = counted(each)
            assert each.n_params_ == stored == formula
            assert each.n_nonzero_ == nonzero
            for linear in (p for p in each.module_ if isinstance(p, nn.Linear)):
                if linear.in_features:
                    assert (linear.weight != 0).any(dim=0).all()
            hidden = [p for p in each.module_ if isinstance(p, nn.Linear)][:-1]
            assert all((p.weight != 0).any(dim=1).all() for p in hidden)


def test_the_front_falls_and_grows(friedman, wine):
    for _, _, model in (friedman, wine):
        sizes = [p.n_nonzero for p in model.pareto_]
        losses = [p.val_loss for p in model.pareto_]
        assert sizes == sorted(set(sizes))
        assert losses == sorted(losses, reverse=True)
        assert model.pareto_[0].source == "constant"


def test_predictions_are_those_of_the_module_on_raw_rows(friedman, wine):
    X, _, model = friedman
    dtype = model.module_[-1].weight.dtype
    with torch.no_grad():
        found = model.module_(torch.as_tensor(X, dtype=dtype)).double().numpy()
    assert np.array_equal(model.predict(X), found[:, 0])
    assert model.predict(X).dtype == np.float64
    X, names, model = wine
    with torch.no_grad():
        f = model.module_(torch.as_tensor(X, dtype=model.module_[-1].weight.dtype)).double().numpy()
    assert np.array_equal(model.predict(X), model.classes_[f.argmax(axis=1)])
    p = np.exp(f - f.max(axis=1, keepdims=True))
    assert np.allclose(model.predict_proba(X), p / p.sum(axis=1, keepdims=True), atol=1e-12)
    assert model.score(X, names) > 0.9


def test_same_seed_same_bits_whatever_the_threads(friedman):
    X, y, model = friedman
    for threads in (1, 2):
        again = clone(model).set_params(n_jobs=threads).fit(X, y)
        assert again.n_params_ == model.n_params_
        for name, value in model.module_.state_dict().items():
            assert torch.equal(value, again.module_.state_dict()[name])
    other = clone(model).set_params(random_state=1).fit(X, y)
    assert not np.array_equal(other.predict(X), model.predict(X))


def test_select_and_caps(friedman):
    _, _, model = friedman
    best = min(model.pareto_, key=lambda p: p.val_loss)
    enough = best.val_loss + best.standard_error
    assert model.chosen_ is next(p for p in model.pareto_ if p.val_loss <= enough)
    cap = model.pareto_[len(model.pareto_) // 2].n_params
    small = model.at(max_params=cap)
    assert small.n_params_ <= cap
    assert small.chosen_.val_loss == min(p.val_loss for p in model.pareto_ if p.n_params <= cap)
    assert model.n_params_ == model.chosen_.n_params  # the other is untouched
    with pytest.raises(ValueError, match="max_params"):
        model.at(max_params=0)


def test_no_point_is_so_small():
    X = RNG.standard_normal((60, 3))
    y = np.digitize(X[:, 0], [-0.3, 0.5])
    model = CompactMLPClassifier(steps=30, random_state=0, strategy="dense", prune=False).fit(X, y)
    with pytest.raises(ValueError, match="max_nonzero = 1; the smallest has n_params = 3"):
        model.at(max_nonzero=1)
    with pytest.raises(ValueError, match="max_params = 2"):
        CompactMLPClassifier(steps=30, random_state=0, max_params=2).fit(X, y)


def test_tol_prunes_the_chosen_point_once_more(friedman):
    X, y, model = friedman
    more = clone(model).set_params(tol=0.2, select="best").fit(X, y)
    best = clone(model).set_params(select="best").fit(X, y)
    assert more.n_nonzero_ < best.n_nonzero_
    assert more.chosen_ not in more.pareto_
    assert more.certificate_["points"] == len(more.pareto_) + 1


def test_unused_columns_are_not_read():
    X = RNG.standard_normal((300, 6))
    y = X[:, 1] - 2 * X[:, 4]
    model = CompactMLPRegressor(steps=200, random_state=0, strategy="dense").fit(X, y)
    assert model.hidden_layer_sizes_ == ()
    assert model.used_features_.tolist() == [1, 4]
    assert isinstance(model.module_[0], Select)
    assert model.score(X, y) > 0.999


def test_survives_files_copies_and_another_process(wine, tmp_path):
    X, _, model = wine
    x = torch.as_tensor(X, dtype=model.module_[-1].weight.dtype)
    expected = model.module_(x)
    torch.save(model.module_, tmp_path / "module.pt")
    whole = torch.load(tmp_path / "module.pt", weights_only=False)
    built = build_module(module_spec(model.module_))
    built.load_state_dict(model.module_.state_dict())
    for module in (
        whole,
        built,
        copy.deepcopy(model.module_),
        pickle.loads(pickle.dumps(model)).module_,
    ):
        assert torch.equal(module(x), expected)


@pytest.mark.parametrize("strategy", ["portfolio", "dense", "direct"])
def test_a_hopeless_penalty_returns_the_linear_or_constant_model(strategy):
    X = RNG.standard_normal((80, 3))
    for estimator, y in ((CompactMLPRegressor, X[:, 0] * 2), (CompactMLPClassifier, X[:, 0] > 0)):
        model = estimator(
            size_penalties=(1e6,), steps=120, random_state=0, strategy=strategy, restarts=2,
            prune=False,
        ).fit(X, y)  # fmt: skip
        assert min(model.hidden_layer_sizes_, default=1) >= 1
        assert np.isfinite(model.predict(X).astype(float)).all()
        if strategy == "direct":
            assert model.hidden_layer_sizes_ == () or model.chosen_.source == "direct"


def test_constants():
    X = RNG.standard_normal((50, 3))
    model = CompactMLPRegressor(steps=30).fit(X, np.full(50, 7.5))
    assert (model.predict(X) == 7.5).all()
    assert (model.n_params_, model.n_nonzero_, model.hidden_layer_sizes_) == (1, 1, ())
    assert len(model.used_features_) == 0
    assert CompactMLPRegressor(steps=30).fit(X, np.zeros(50)).n_nonzero_ == 0
    one = CompactMLPClassifier(steps=30).fit(X, np.full(50, "only"))
    assert (one.predict(X) == "only").all()
    assert (one.predict_proba(X) == 1).all()
    flat = CompactMLPRegressor(steps=30).fit(np.ones((50, 3)), np.arange(50.0))
    assert np.allclose(flat.predict(np.ones((2, 3))), np.arange(50.0).mean(), atol=3)


def test_few_rows_are_said():
    X = RNG.standard_normal((12, 2))
    model = CompactMLPRegressor(steps=40, random_state=0).fit(X, X[:, 0])
    assert "too few for internal validation" in model.certificate_["notes"][0]


def test_several_outputs_and_one_column():
    X = RNG.standard_normal((120, 4))
    Y = np.stack([X[:, 0], 3 * X[:, 1] - X[:, 2]], axis=1)
    model = CompactMLPRegressor(steps=150, random_state=0, strategy="dense").fit(X, Y)
    assert model.predict(X).shape == (120, 2)
    assert model.score(X, Y) > 0.99
    one = CompactMLPRegressor(steps=40, random_state=0, strategy="dense").fit(X, Y[:, :1])
    assert one.predict(X).shape == (120, 1)


def test_object_labels_and_weights():
    X = RNG.standard_normal((90, 2))
    y = np.where(X[:, 0] > 0, "yes", "no").astype(object)
    w = (RNG.random(90) < 0.7).astype(float)
    model = CompactMLPClassifier(steps=100, random_state=0, strategy="dense")
    weighted = clone(model).fit(X, y, sample_weight=w).predict_proba(X)
    dropped = clone(model).fit(X[w > 0], y[w > 0]).predict_proba(X)
    assert np.array_equal(weighted, dropped)
    assert model.fit(X, y).score(X, y) > 0.95
    with pytest.raises(ValueError, match=r"[Ss]ample.weight"):
        model.fit(X, y, sample_weight=np.zeros(90))
    with pytest.raises(ValueError, match=r"[Nn]egative"):
        model.fit(X, y, sample_weight=-w)


def test_an_affine_map_of_a_column_changes_little():
    """Columns x -> 1e-3 x + 1e3: lost in float32 before the mean is taken."""
    X, y = make_friedman1(200, n_features=7, noise=0.3, random_state=0)
    model = CompactMLPRegressor(steps=150, random_state=0, strategy="dense", max_width=4)
    plain = clone(model).fit(X, y).score(X, y)
    for scale, shift in ((1e-3, 1e3), (1e4, 1e3)):
        moved = clone(model).fit(scale * X + shift, y)
        assert abs(moved.score(scale * X + shift, y) - plain) < 0.01
        assert moved.certificate_["folding_deviation"] <= 1e-5


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"max_width": 0}, "max_width"),
        ({"max_depth": 0}, "max_depth"),
        ({"activations": ("tanh", "swish")}, "activations"),
        ({"activations": ()}, "activations"),
        ({"activations": "tanh"}, "activations"),
        ({"size_penalties": ()}, "size_penalties"),
        ({"size_penalties": (-1.0,)}, "size_penalties"),
        ({"confidence": 1.0}, "confidence"),
        ({"confidence": 0.0}, "confidence"),
        ({"time_budget": 0}, "time_budget"),
        ({"time_budget": -3.0}, "time_budget"),
        ({"steps": 0}, "steps"),
        ({"steps": 2.5}, "steps"),
        ({"restarts": 0}, "restarts"),
        ({"max_params": 0}, "max_params"),
        ({"select": "worst"}, "select"),
        ({"select": 0.5}, "select"),
        ({"tol": -1}, "tol"),
        ({"validation_fraction": 1.0}, "validation_fraction"),
        ({"certify_fraction": 1.0}, "certify_fraction"),
        ({"alpha": -1.0}, "alpha"),
        ({"strategy": "grid"}, "strategy"),
        ({"strategy": "autoencoder"}, "autoencoder"),
        ({"autoencoder": 3}, "autoencoder"),
        ({"prune": "yes"}, "prune"),
        ({"verbose": -1}, "verbose"),
        ({"n_jobs": 0}, "n_jobs must be a whole number other than 0"),
        ({"n_jobs": 1.5}, "n_jobs"),
        ({"activations": ("tanh", "tanh")}, "activations must be distinct"),
    ],
)
@pytest.mark.parametrize("estimator", [CompactMLPClassifier, CompactMLPRegressor])
def test_a_parameter_out_of_range_is_named(estimator, settings, name):
    X, y = np.ones((30, 2)), np.arange(30) % 2
    with pytest.raises(ValueError, match=name):
        estimator(**settings).fit(X, y)


@pytest.mark.parametrize("estimator", [CompactMLPClassifier, CompactMLPRegressor])
def test_bad_data(estimator):
    X, y = RNG.standard_normal((30, 2)), np.arange(30) % 2
    wrong = X.copy()
    wrong[3, 1] = np.nan
    model = estimator(steps=20, random_state=0)
    with pytest.raises(ValueError, match="NaN"):
        model.fit(wrong, y)
    with pytest.raises(ValueError, match="Reshape"):
        model.fit(X[:, 0], y)
    model.fit(X, y)
    with pytest.raises(ValueError, match="features"):
        model.predict(X[:, :1])
    with pytest.raises(ValueError, match="NaN"):
        model.predict(wrong)
