"""Problems with known constants, against scikit-learn, autograd and one another."""

import math

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, Ridge

from surefoot._problems.real import real
from surefoot._problems.ridge import ridge, ridge_on
from surefoot._problems.softmax import hessian, softmax, softmax_on

SOFTMAX = [("digits", 0.05), ("wine", 0.01), ("breast_cancer", 1e-3), ("iris", 0.1)]


def points(problem, count=3):
    g = torch.Generator().manual_seed(0)
    for scale in torch.logspace(-1, 1, count):
        yield scale * torch.randn(problem.m, problem.n, generator=g, dtype=torch.float64)


@pytest.mark.parametrize(("table", "l2"), SOFTMAX)
def test_the_minimum_is_that_of_scikit_learn(table, l2):
    problem = softmax_on(table, l2)
    x, y = real(table)
    if problem.m > 2:  # of two classes scikit-learn fits a sigmoid, whose ridge is another
        other = LogisticRegression(
            C=1 / (len(x) * l2), fit_intercept=False, tol=1e-10, max_iter=10_000
        )
        W = torch.from_numpy(other.fit(x.numpy(), y.numpy()).coef_)
        assert float(problem.f(W)) == pytest.approx(problem.f_star, abs=1e-9)
        assert torch.allclose(W, problem.minimiser, atol=1e-4)
    assert float(problem.gradient(problem.minimiser).norm()) <= 1e-12
    assert float(problem.f(problem.minimiser)) == problem.f_star
    for W in points(problem):
        assert float(problem.f(W)) > problem.f_star


def test_two_classes_are_the_sigmoid_of_scikit_learn():
    """The rows of W* are opposite: (l2/2) ||W||^2 is (l2/4) |w|^2 of their difference w."""
    problem = softmax_on("breast_cancer", 1e-3)
    x, y = real("breast_cancer")
    other = LogisticRegression(
        C=2 / (len(x) * problem.l2), fit_intercept=False, tol=1e-10, max_iter=10_000
    )
    w = torch.from_numpy(other.fit(x.numpy(), y.numpy()).coef_[0])
    assert torch.allclose(problem.minimiser[1], w / 2, atol=1e-4)
    assert torch.allclose(problem.minimiser[0], -problem.minimiser[1], atol=1e-12)


@pytest.mark.parametrize(("table", "l2"), SOFTMAX[1:])
def test_curvature_lies_between_mu_and_L(table, l2):
    problem = softmax_on(table, l2)
    for W in [torch.zeros(problem.m, problem.n, dtype=torch.float64), *points(problem)]:
        size = problem.m * problem.n
        H = torch.autograd.functional.hessian(problem.f, W).reshape(size, size)
        assert torch.allclose(H, hessian(problem, W), atol=1e-12)
        spectrum = torch.linalg.eigvalsh(H)
        assert problem.mu * (1 - 1e-9) <= float(spectrum[0])
        assert float(spectrum[-1]) <= problem.L


def test_the_smoothness_of_two_classes_is_attained_at_zero():
    """diag(p) - p p^T has the eigenvalue 1/2 at p = (1/2, 1/2): no smaller L would do."""
    problem = softmax_on("breast_cancer", 1e-3)
    H = hessian(problem, torch.zeros(2, problem.n, dtype=torch.float64))
    assert float(torch.linalg.eigvalsh(H)[-1]) == pytest.approx(problem.L, rel=1e-12)


def test_without_a_ridge_nobody_claims_a_minimum():
    problem = softmax_on("digits", 0.0, bias=True)
    assert problem.minimiser is None
    assert math.isnan(problem.f_star)
    assert math.isnan(problem.gap0)
    assert problem.mu == 0.0
    assert problem.n == 65
    unasked = softmax_on("digits", 0.05, solve=False)
    assert unasked.minimiser is None
    assert math.isnan(unasked.f_star)
    assert unasked.L == softmax_on("digits", 0.05).L


def test_a_minimum_out_of_reach_is_an_error_and_no_number(monkeypatch):
    x, y = real("iris")
    monkeypatch.setattr("surefoot._problems.softmax.STATIONARY", 1e-30)
    with pytest.raises(RuntimeError, match=r"no minimiser found, \|grad f\| = .* raise l2"):
        softmax(x, y, 0.1, classes=3)
    with pytest.raises(ValueError, match="l2 must be at least 0 and finite, got -1.0"):
        softmax(x, y, -1.0, classes=3)


@pytest.mark.parametrize("l2", [1e-3, 0.1, 2.0])
def test_ridge_is_that_of_scikit_learn(l2):
    problem = ridge_on("diabetes", l2)
    x, y = real("diabetes")
    targets = ((y - y.mean()) / y.std(correction=0)).numpy()
    other = Ridge(alpha=len(x) * l2, fit_intercept=False, solver="svd").fit(x.numpy(), targets)
    assert np.allclose(problem.minimiser[0].numpy(), other.coef_, atol=1e-12)
    assert float(problem.f(problem.minimiser)) == pytest.approx(problem.f_star, rel=1e-13)
    assert float(problem.gradient(problem.minimiser).norm()) < 1e-12
    H = torch.autograd.functional.hessian(problem.f, problem.minimiser).reshape(10, 10)
    spectrum = torch.linalg.eigvalsh(H)
    assert float(spectrum[0]) == pytest.approx(problem.mu, rel=1e-9)
    assert float(spectrum[-1]) == pytest.approx(problem.L, rel=1e-12)


@pytest.mark.parametrize("shape", [(12, 30), (30, 12)])
def test_least_squares_has_the_constant_of_polyak_and_lojasiewicz(shape):
    """1/2 |grad f|^2 >= mu (f - f*) everywhere, and for some direction with equality."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal(shape), rng.standard_normal((shape[0], 1))
    problem = ridge(x, y, 0.0)
    for W in points(problem, 6):
        assert 0.5 * float(problem.gradient(W).square().sum()) >= problem.mu * (
            float(problem.f(W)) - problem.f_star
        ) * (1 - 1e-9)
    _, _, rows = np.linalg.svd(x, full_matrices=False)
    along = problem.minimiser + torch.from_numpy(rows[-1:])
    assert 0.5 * float(problem.gradient(along).square().sum()) == pytest.approx(
        problem.mu * (float(problem.f(along)) - problem.f_star), rel=1e-9
    )
    assert np.allclose(problem.minimiser.numpy(), (np.linalg.pinv(x) @ y).T)


def test_a_repeated_column_does_not_make_mu_zero():
    x = np.random.default_rng(1).standard_normal((20, 3))
    problem = ridge(np.c_[x, x[:, :1]], np.ones((20, 1)), 0.0)
    assert problem.mu > 0.1


def test_batches_are_rows_of_the_whole():
    for problem in (softmax_on("wine", 0.01), ridge_on("diabetes", 0.1)):
        W = next(points(problem))
        rows = torch.arange(len(problem.features)).split(50)
        mean = sum(float(problem.f(W, r)) * len(r) for r in rows) / len(problem.features)
        assert mean == pytest.approx(float(problem.f(W)), rel=1e-12)
        g = sum(problem.gradient(W, r) * len(r) for r in rows) / len(problem.features)
        assert torch.allclose(g, problem.gradient(W), atol=1e-12)


def test_tables_come_in_one_scale():
    x, y = real("digits")
    assert (float(x.min()), float(x.max())) == (0.0, 1.0)
    assert x.dtype == torch.float64
    assert y.dtype == torch.int64
    x, _ = real("wine", bias=True)
    assert torch.allclose(x[:, :-1].mean(dim=0), torch.zeros(13, dtype=x.dtype), atol=1e-12)
    assert torch.allclose(x[:, :-1].square().mean(dim=0), torch.ones(13, dtype=x.dtype))
    assert bool((x[:, -1] == 1).all())
