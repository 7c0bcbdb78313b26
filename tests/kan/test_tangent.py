"""Tangent matrices, the forecasts of their spectrum and the steps that they permit."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.kan.problems import Hidden, line, linear
from torch import nn

from surefoot.errors import SurefootError
from surefoot.kan import (
    KAN2,
    Tangent,
    certificate,
    forecast,
    stability_limit,
    step_size,
    steps_to,
    tangent,
)


def points(n, d, seed=0):
    g = torch.Generator().manual_seed(seed)
    return 2 * torch.rand(n, d, generator=g, dtype=torch.float64) - 1


def by_rows(model, X):
    """K from one backward a row."""
    rows = []
    for x in X:
        grads = torch.autograd.grad(model(x[None]).sum(), list(model.parameters()))
        rows.append(torch.cat([g.reshape(-1) for g in grads]))
    J = torch.stack(rows).double()
    return J @ J.T


def net(d=2, dtype=torch.float64):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(d, 8), nn.Tanh(), nn.Linear(8, 1)).to(dtype)


@pytest.mark.parametrize("order", [2, 3, 5])
def test_closed_form_is_reverse_mode(order):
    model, X = KAN2(3, 20, spline_order=order, seed=1), points(12, 3)
    closed, reverse = tangent(model, X), tangent(Hidden(model), X)
    assert torch.allclose(closed.K, reverse.K, rtol=0, atol=1e-10 * reverse.lambda_max)
    assert torch.allclose(closed.K, by_rows(model, X), rtol=0, atol=1e-10 * reverse.lambda_max)


def test_any_module_whatever_its_dtype():
    X = points(6, 2)
    exact = tangent(net(), X)
    assert torch.allclose(exact.K, by_rows(net(), X), atol=1e-12)
    coarse = tangent(net(dtype=torch.float32), X.float())
    assert coarse.K.dtype == torch.float64
    wide = net(dtype=torch.float32).double()
    # The parameters and points are rounded, the computation is not.
    assert torch.allclose(coarse.K, by_rows(wide, X.float().double()), rtol=0, atol=1e-12)


def test_only_what_is_trained_counts():
    model = net()
    model[0].requires_grad_(False)
    X = points(6, 2)
    h = torch.tanh(model[0](X)).detach()
    assert torch.allclose(tangent(model, X).K, h @ h.T + 1, atol=1e-12)


def test_two_outputs_are_rows_one_after_the_other():
    torch.manual_seed(0)
    model, X = nn.Linear(2, 2, bias=False).double(), points(3, 2)
    K = tangent(model, X).K.reshape(3, 2, 3, 2)
    assert torch.allclose(K, torch.einsum("ij,ab->iajb", X @ X.T, torch.eye(2).double()))


def test_a_residual_of_ones_own_and_the_mean():
    model, X = net(), points(5, 2)
    plain = tangent(model, X)
    twice = tangent(model, X, residual=lambda f, x: 2 * f(x)[:, 0])
    assert torch.allclose(twice.K, 4 * plain.K)
    assert torch.allclose(tangent(model, X, normalisation="mean").K, plain.K / 5)
    assert torch.allclose(
        tangent(KAN2(2, 8, seed=0), X, normalisation="mean").K, tangent(KAN2(2, 8, seed=0), X).K / 5
    )


def test_spectrum():
    t = tangent(net(), points(6, 2))
    rebuilt = t.eigvecs @ torch.diag(t.eigvals) @ t.eigvecs.T
    assert torch.allclose(rebuilt, t.K, atol=1e-12)
    assert t.lambda_min == float(t.eigvals.min())
    assert t.cond == pytest.approx(t.lambda_max / t.lambda_min)


def test_a_point_twice_is_singular():
    X = points(5, 2)
    X[4] = X[1]
    t = tangent(KAN2(2, 30, seed=0), X)
    assert t.singular
    assert t.cond == math.inf
    assert abs(t.lambda_min) <= 1e-12 * t.lambda_max


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: tangent(net()), "X must be"),
        (lambda: tangent(net(), torch.ones(3)), "X must have 2 dimensions"),
        (lambda: tangent(net(), torch.full((3, 2), math.nan)), "X must be finite"),
        (lambda: tangent(nn.Tanh(), points(3, 2)), "model must have parameters"),
        (lambda: tangent(lambda x: x, points(3, 2)), "model must be a torch module"),
        (lambda: tangent(linear(), points(3, 2)), "X, y and residual must be left out"),
        (lambda: tangent(net(), points(3, 2), normalisation="median"), "normalisation must be one"),
        (lambda: tangent(nn.Flatten(0), points(3, 2)), "model must have parameters"),
    ],
)
def test_what_is_no_problem_says_so(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_weights_that_are_nan_give_no_spectrum():
    model = net()
    with torch.no_grad():
        model[0].weight[0, 0] = math.nan
    with pytest.raises(SurefootError, match="not finite"):
        tangent(model, points(3, 2))


def descend(problem, eta, steps):
    losses = []
    for _ in range(steps + 1):
        r = problem.residual().detach()
        losses.append(float(r @ r) / 2)
        with torch.no_grad():
            problem.theta -= eta * problem.A.T @ r
    return torch.tensor(losses, dtype=torch.float64)


def test_forecast_of_a_linear_model_is_its_run():
    problem = linear()
    t, r0 = tangent(problem), problem.residual().detach()
    for eta in (0.7 / t.lambda_max, 2.2 / t.lambda_max):
        ahead = forecast(t, r0, eta, 30)
        run = descend(linear(), eta, 30)
        assert torch.allclose(ahead, run, rtol=1e-10)
    assert torch.allclose(
        forecast(t, r0, 0.1 / t.lambda_max, [7, 3]),
        descend(linear(), 0.1 / t.lambda_max, 7)[[7, 3]],
    )


@pytest.mark.parametrize("batch", [1, 2])
def test_mean_forecast_of_a_linear_model_is_the_mean_over_all_draws(batch):
    problem = linear(n=3)
    t, r0, eta, steps = tangent(problem), problem.residual().detach(), 0.02, 3
    draws = list(itertools.product(range(3), repeat=batch))
    states = [r0]
    exact = [float(r0 @ r0) / 2]
    for _ in range(steps):
        # After each draw r <- r - eta K (n/B) sum of the rows drawn.
        following = []
        for r in states:
            for rows in draws:
                g = torch.zeros(3, dtype=torch.float64)
                for i in rows:
                    g[i] += 3 / batch * r[i]
                following.append(r - eta * t.K @ g)
        states = following
        exact.append(sum(float(r @ r) / 2 for r in states) / len(states))
    ahead = forecast(t, r0, eta, steps, batch=batch)
    assert ahead.tolist() == pytest.approx(exact, rel=1e-11)


def test_a_batch_as_large_as_a_law_of_large_numbers_is_the_full_batch():
    problem = linear()
    t, r0 = tangent(problem), problem.residual().detach()
    full, many = forecast(t, r0, 0.05, 20), forecast(t, r0, 0.05, 20, batch=10**9)
    assert torch.allclose(full, many, rtol=1e-6)


@given(st.floats(1e-12, 0.9), st.floats(0.05, 1.9), st.integers(0, 3))
@settings(max_examples=30, deadline=None)
def test_steps_to_is_the_first_such_step(share, relative, seed):
    problem = linear(seed=seed)
    t, r0 = tangent(problem), problem.residual().detach()
    eta, eps = relative / t.lambda_max, share * float(r0 @ r0) / 2
    first = steps_to(t, r0, eta, eps)
    assert float(forecast(t, r0, eta, [int(first)])[0]) <= eps
    assert first == 0 or float(forecast(t, r0, eta, [int(first) - 1])[0]) > eps


def test_steps_to_ends_where_there_is_none():
    t = Tangent.of(torch.diag(torch.tensor([0.0, 1.0], dtype=torch.float64)))
    assert steps_to(t, torch.ones(2), 0.5, 0.25) == math.inf
    assert steps_to(t, torch.ones(2), 0.5, 0.6) == 2  # 1/2 + 1/2 * .5^(2 * 2) = .53
    assert steps_to(t, torch.ones(2), 0.5, 1.0) == 0
    with pytest.raises(ValueError, match=r"eta must be below 2 / lambda_max = 2"):
        steps_to(t, torch.ones(2), 2.0, 0.6)


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_stability_limit_is_where_the_recursion_stops_shrinking(batch):
    """The n^2 x n^2 matrix of one step of the second moments has spectral radius 1 there."""
    K = tangent(linear(n=4, p=6)).K
    t, n = Tangent.of(K), 4

    def radius(eta):
        columns = []
        for i in range(n * n):
            M = torch.zeros(n * n, dtype=torch.float64)
            M[i] = 1
            M = M.reshape(n, n)
            noise = M * (1 - 1 / batch) + torch.diag(M.diagonal()) * n / batch
            columns.append((M - eta * (K @ M + M @ K) + eta**2 * K @ noise @ K).reshape(-1))
        return float(torch.linalg.eigvals(torch.stack(columns, 1)).abs().max())

    limit = stability_limit(t, batch)
    assert radius(0.999 * limit) < 1 < radius(1.001 * limit)
    assert limit < stability_limit(t) == 2 / t.lambda_max


def test_step_sizes_and_what_they_need():
    X = line(5)
    model, y = KAN2(1, 64, symmetric=True, seed=0), 0.001 * X[:, 0]
    t, c = tangent(model, X), certificate(model, X, y)
    assert step_size(t) == 1 / t.lambda_max
    assert step_size(t, "certified", certificate=c) == c.step < 1 / t.lambda_max
    assert 0 < step_size(t, "sgd", certificate=c, batch=2) < c.step
    with pytest.raises(ValueError, match="certificate must be"):
        step_size(t, "certified")
    with pytest.raises(ValueError, match="batch must be"):
        step_size(t, "sgd", certificate=c)
    with pytest.raises(ValueError, match="mode must be one of 'gd', 'certified', 'sgd'"):
        step_size(t, "adam")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"eta": 0.0}, "eta must be positive"),
        ({"eta": math.nan}, "eta must be a number"),
        ({"steps": -1}, "steps must be a whole number of at least 0"),
        ({"steps": [1.5]}, "steps must be a whole number"),
        ({"r0": torch.ones(2)}, "r0 must have as many numbers as K has rows, 3, got 2"),
        ({"r0": torch.full((3,), math.nan)}, "r0 must be finite"),
        ({"batch": 0}, "batch must be a whole number of at least 1"),
    ],
)
def test_a_forecast_of_nothing_says_so(change, message):
    t = tangent(linear())
    with pytest.raises(ValueError, match=message):
        forecast(**{"tangent": t, "r0": torch.ones(3), "eta": 0.1, "steps": 3, **change})
