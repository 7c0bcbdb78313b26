"""Callables that no verdict may rest on are refused with their reason; models of other shapes are taken."""

import numpy as np
import pytest
import torch
from sklearn.ensemble import RandomForestRegressor
from sklearn.linear_model import LinearRegression, Ridge
from torch import nn

from surefoot.in_context import (
    GaussianPrompts,
    LoopedTransformer,
    ModulePredictor,
    ProbeError,
    RegressorPredictor,
    probe,
)

from . import hidden

gd = hidden.descent(hidden.steps(0.6, d=3))


def raises(X, y, xq):
    raise KeyError("weights")


def modifies(X, y, xq):
    y *= 2
    return gd(X, y, xq)


def modifies_by_resizing(X, y, xq):
    X.resize_(1)
    return torch.zeros(len(xq))


def noisy(X, y, xq):
    return gd(X, y, xq) + 0.01 * torch.randn(len(xq), dtype=torch.float64)


def counting():
    calls = []

    def fn(X, y, xq):
        calls.append(1)
        return gd(X, y, xq) * len(calls)

    return fn


def batch_normalised(X, y, xq):
    found = gd(X, y, xq)
    return found / found.std()


def float32(X, y, xq):
    return nn.Linear(3, 1)(xq)[:, 0]


@pytest.mark.parametrize(
    ("fn", "words"),
    [
        (raises, "fn raised KeyError: 'weights', when called with X .8, 3, 10"),
        (float32, "prompts are float64: cast inside"),
        (modifies, "fn changed its input y in place"),
        (modifies_by_resizing, "fn changed its input X in place"),
        (noisy, "two answers to the same prompts.*dropout"),
        (counting(), "two answers to the same prompts"),
        (batch_normalised, "in another batch"),
        (lambda X, y, xq: gd(X, y, xq).numpy(), "must return a torch tensor .torch.from_numpy"),
        (lambda X, y, xq: gd(X, y, xq).tolist(), "must return a torch tensor, got list"),
        (lambda X, y, xq: None, "must return a torch tensor, got NoneType"),
        (lambda X, y, xq: (gd(X, y, xq), 1), "must return a torch tensor, got tuple"),
        (lambda X, y, xq: gd(X, y, xq)[:, None], "shape .8,., got .8, 1.*squeeze"),
        (lambda X, y, xq: xq, "got .8, 3.*layerwise"),
        (lambda X, y, xq: gd(X, y, xq).sum(), "shape .8,., got"),
        (lambda X, y, xq: gd(X, y, xq)[1:], "got .7,"),
        (lambda X, y, xq: gd(X, y, xq).long(), "real floating-point numbers, got torch.int64"),
        (lambda X, y, xq: gd(X, y, xq) + 1j, "real floating-point numbers, got torch.complex128"),
        (lambda X, y, xq: gd(X, y, xq).log(), "NaN or infinity for"),
        (lambda X, y, xq: gd(X, y, xq) / 0, "NaN or infinity for 8 of 8"),
        (LinearRegression, "the class LinearRegression; make an object"),
        (LoopedTransformer, "the class LoopedTransformer"),
        (None, "must be a callable"),
        ("module:fn", "must be a callable"),
        (lambda X: X, "fn raised TypeError"),
    ],
)  # fmt: skip
def test_it_is_refused(fn, words):
    with pytest.raises(ProbeError, match=words):
        probe(fn, d=3, n=10, max_loops=1, size=8)


@pytest.mark.parametrize("layers", [(), (0,), (2, 2)])
def test_layerwise_answers_must_have_a_column_a_layer(layers):
    def fn(X, y, xq):
        return torch.zeros(len(xq), *layers)

    with pytest.raises(ProbeError, match=r"shape \(8, layers\), got"):
        probe(fn, d=3, n=10, max_loops=1, size=8, layerwise=True)


def test_the_number_of_layers_must_stay_the_same():
    def fn(X, y, xq):
        return torch.zeros(len(xq), 2 + len(xq) % 2)

    with pytest.raises(ProbeError, match="layers"):
        probe(fn, d=3, n=10, max_loops=1, size=9, layerwise=True)


def test_nan_that_comes_later_is_found_too():
    # The first eight prompts, which are tried, are sound.
    def fn(X, y, xq):
        found = gd(X, y, xq)
        found[9:] = torch.nan
        return found

    with pytest.raises(ProbeError, match="for 3 of 12"):
        probe(fn, d=3, n=10, max_loops=1, size=12)


def test_the_callable_may_differentiate_inside():
    def fn(X, y, xq):
        w = torch.zeros(len(X), 3, dtype=torch.float64, requires_grad=True)
        loss = (((X * w[..., None]).sum(1) - y) ** 2).sum() / (2 * X.shape[2])
        return (xq * (-0.6 * torch.autograd.grad(loss, w)[0])).sum(1)

    report = probe(fn, d=3, n=10, max_loops=2, size=16)
    assert (report.verdict, report.loops) == ("gd", 1)


def test_rounding_of_float32_answers_is_no_second_answer():
    drift = iter(range(1000))

    def fn(X, y, xq):
        found = gd(X, y, xq).float()
        return found * (1 + 1e-6 * (next(drift) % 2))

    assert probe(fn, d=3, n=10, max_loops=2, size=16).verdict == "gd"


# -- torch modules ---------------------------------------------------------------------------------


class Dropped(nn.Module):
    def __init__(self):
        super().__init__()
        self.model, self.drop = LoopedTransformer(3, 1, dtype=torch.float32), nn.Dropout(0.5)
        with torch.no_grad():
            self.model.A.copy_(0.5 * torch.eye(3))

    def forward(self, X, y, xq):
        return self.drop(self.model(X, y, xq))


def test_a_module_is_asked_in_evaluation_mode_and_left_as_it_was():
    module = Dropped()
    module.model.eval()
    before = [m.training for m in module.modules()]
    report = probe(module, d=3, n=10, max_loops=2, size=16)
    assert (report.verdict, report.loops) == ("gd", 1)
    assert [m.training for m in module.modules()] == before
    assert all(p.grad is None for p in module.parameters())


def test_a_module_that_fails_is_left_in_its_mode():
    module = LoopedTransformer(4, 1).train()
    with pytest.raises(ProbeError, match="fn raised ValueError: X must have shape"):
        probe(module, d=3, n=10, max_loops=1, size=8)
    assert module.training


def test_a_module_without_parameters_gets_float64():
    class Mean(nn.Module):
        def forward(self, X, y, xq):
            assert X.dtype == torch.float64
            return (X * y[:, None]).mean(2).mul(xq).sum(1)

    assert probe(Mean(), d=3, n=10, max_loops=1, size=16).loops == 1


def test_what_is_no_module_is_refused():
    with pytest.raises(ValueError, match="module must be a torch module"):
        ModulePredictor(gd)


# -- scikit-learn regressors -----------------------------------------------------------------------


def test_a_regressor_is_fitted_on_every_prompts_examples():
    report = probe(Ridge(alpha=2.0, fit_intercept=False), d=3, n=10, max_loops=1, size=12)
    assert report.verdict == "ridge"
    assert report.alpha == pytest.approx(2, rel=1e-5)
    assert report.name == "Ridge"


def test_least_squares_with_an_intercept_is_least_squares_where_there_is_no_noise():
    assert probe(LinearRegression(), d=3, n=10, max_loops=1, size=8).verdict == "ols"


def test_ridge_with_an_intercept_has_another_line():
    report = probe(Ridge(alpha=2.0), d=3, n=10, max_loops=1, size=8)
    assert report.verdict == "not linear in the query"


def test_the_regressor_itself_is_not_fitted():
    estimator = Ridge()
    fn = RegressorPredictor(estimator)
    prompt = GaussianPrompts(3, 10, seed=0).sample(2)
    want = [Ridge().fit(X.T, y).predict(q[None])[0] for X, y, q in
            zip(prompt.X.numpy(), prompt.y.numpy(), prompt.xq.numpy(), strict=True)]  # fmt: skip
    np.testing.assert_array_equal(fn(prompt.X, prompt.y, prompt.xq).numpy(), want)
    assert not hasattr(estimator, "coef_")


def test_a_random_regressor_needs_its_seed():
    with pytest.raises(ProbeError, match="two answers"):
        probe(RandomForestRegressor(1), d=2, n=8, max_loops=1, size=8)
    report = probe(RandomForestRegressor(1, random_state=0), d=2, n=8, max_loops=1, size=8)
    assert report.verdict == "not linear in the query"


@pytest.mark.parametrize("estimator", [Ridge, None, gd])
def test_what_is_no_regressor_is_refused(estimator):
    with pytest.raises(ValueError, match="estimator must be an object"):
        RegressorPredictor(estimator)
