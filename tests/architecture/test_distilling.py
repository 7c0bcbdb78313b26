"""`compress`: any predictor as the smallest network that matches it."""

import numpy as np
import pytest
import torch
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LinearRegression
from tests.architecture.tables import plain
from torch import nn

from surefoot.architecture import CompactMLPClassifier, CompactMLPRegressor, compress

RNG = np.random.default_rng(0)
X = RNG.standard_normal((200, 3))
SETTINGS = {"steps": 100, "random_state": 0, "strategy": "dense", "max_width": 4}


def test_a_forest_becomes_a_classifier_of_its_labels():
    y = np.where(X[:, 0] + X[:, 1] > 0, "up", "down")
    forest = RandomForestClassifier(10, random_state=0).fit(X, y)
    found = compress(forest, X, **SETTINGS)
    assert isinstance(found, CompactMLPClassifier)
    assert found.score(X, forest.predict(X)) > 0.93
    assert found.n_params_ < 60


def test_functions_modules_and_estimators_become_regressors():
    module = plain([3, 1], seed=1, dtype=torch.float32).train()
    module.append(nn.Dropout(0.5))
    linear = LinearRegression().fit(X, X[:, 0] - X[:, 2])
    expected = module[0](torch.as_tensor(X, dtype=torch.float32)).detach().numpy()[:, 0]
    for source, y in (
        (module, expected), (linear, linear.predict(X)), (lambda x: 3 * x[:, 1], 3 * X[:, 1]),
    ):  # fmt: skip
        found = compress(source, X, **SETTINGS)
        assert isinstance(found, CompactMLPRegressor)
        assert found.predict(X).shape == (200,)
        assert found.score(X, y) > 0.999
    assert module.training  # left as it was


def test_each_module_keeps_its_mode_and_inputs_are_not_written_to():
    frozen = nn.BatchNorm1d(3).eval()
    module = nn.Sequential(frozen, nn.Dropout(0.5), nn.Linear(3, 1, dtype=torch.float32)).train()
    frozen.eval()  # as one does who fine-tunes
    before = X.copy()
    compress(module, X, **SETTINGS)
    assert [m.training for m in module] == [False, True, True]

    class Writes(nn.Module):
        def forward(self, x):
            return x.zero_()[:, :1]

    def writes(x):
        x[:] = 0
        return x[:, 0]

    for source in (Writes(), writes):
        compress(source, X, **SETTINGS)
        assert np.array_equal(X, before)


def test_several_outputs():
    found = compress(lambda x: x[:, :2], X, **SETTINGS)
    assert found.predict(X).shape == (200, 2)


def test_what_is_refused():
    with pytest.raises(TypeError, match="module_or_callable"):
        compress(3, X)
    with pytest.raises(ValueError, match=r"must give \(200,\)"):
        compress(lambda x: x[:5, 0], X)
    with pytest.raises(ValueError, match="outputs of module_or_callable"):
        compress(lambda x: np.full(len(x), np.nan), X)
    with pytest.raises(ValueError, match="X"):
        compress(lambda x: x, np.array([[np.nan]]))
    with pytest.raises(ValueError, match="must give a tensor, got tuple"):
        compress(nn.GRU(3, 2, dtype=torch.float64), X)
    with pytest.raises(ValueError, match="max_width"):
        compress(lambda x: x[:, 0], X, max_width=0)
