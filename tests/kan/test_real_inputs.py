"""Inputs as people have them: raw units, zeros, turned tables, states of another network."""

import warnings

import numpy as np
import pytest
import torch
from torch import nn

from surefoot.errors import NonFiniteError
from surefoot.kan import (
    KAN,
    KAN2,
    PIKAN,
    KANClassifier,
    KANLinear,
    KANRegressor,
    OutOfGridWarning,
    PDEResidual,
    Regression,
    certificate,
    fit_gd,
    fit_lbfgs,
    prune,
    tangent,
)


@pytest.fixture
def x():
    return 2 * torch.rand(60, 2, generator=torch.Generator().manual_seed(0)) - 1


@pytest.fixture
def y(x):
    return torch.sin(3 * x[:, :1]) * x[:, 1:]


def network(widths, **settings):
    torch.manual_seed(0)
    return KAN(widths, out_of_grid="linear", **settings)


def train(model, x, y, steps=150, optimizer=None):
    optimizer = optimizer or torch.optim.AdamW(model.parameters(), lr=0.02)
    for _ in range(steps):
        optimizer.zero_grad()
        loss = (model(x) - y).square().mean()
        loss.backward()
        optimizer.step()
    return loss.item()


# The penalty.


@pytest.mark.parametrize("zero", ["one", "all", "masked"])
def test_the_penalty_of_edges_that_are_0_has_a_gradient(zero):
    layer = KANLinear(2, 3)
    if zero == "masked":
        layer.mask = torch.tensor([[True, False], [True, True], [False, True]])
    with torch.no_grad():
        layer.spline_weight[0 if zero == "one" else slice(None), 0] = 0
        if zero == "all":
            layer.weight.zero_()
    value = layer.regularization()
    value.backward()
    assert torch.isfinite(value)
    assert torch.isfinite(layer.weight.grad).all()


def test_the_penalty_and_its_gradient_are_those_of_its_definition():
    layer = KANLinear(2, 3, dtype=torch.float64)
    layer.regularization(0.7, 1.3).backward()
    found = layer.weight.grad.clone()
    layer.weight.grad = None
    size = layer.spline_weight.abs().mean(-1)
    share = size / size.sum()
    (0.7 * size.sum() - 1.3 * (share * share.log()).sum()).backward()
    torch.testing.assert_close(found, layer.weight.grad, rtol=1e-12, atol=1e-15)


def test_a_pruned_network_trains_with_the_penalty(x, y):
    small = prune(network([2, 4, 1]).fit_grid(x), x, keep=0.5).model
    optimizer = torch.optim.AdamW(small.parameters(), lr=0.01)
    for _ in range(3):
        optimizer.zero_grad()
        ((small(x) - y).square().mean() + 1e-3 * small.regularization()).backward()
        optimizer.step()
    assert all(torch.isfinite(p).all() for p in small.parameters())


# Grids far from the data.


@pytest.mark.parametrize("policy", ["zero", "clamp", "linear"])
def test_a_grid_that_is_moved_far_tells_that_it_extrapolates(x, policy):
    layer = KANLinear(2, 3, out_of_grid=policy)
    raw = x * torch.tensor([0.5, 3e4]) + torch.tensor([0.0, 2e5])
    with pytest.warns(OutOfGridWarning, match=r"x\[:, 1\] spans .*Standardise"):
        layer.fit_grid(raw)


@pytest.mark.parametrize("shift", ["unit", "standardised", "constant", "not kept"])
def test_a_grid_that_is_moved_a_little_says_nothing(x, shift):
    data = {
        "unit": x,
        "standardised": 3 * x,
        "constant": torch.full_like(x, 7),
        "not kept": 1e5 * x,
    }
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        KANLinear(2, 3).fit_grid(data[shift], keep=shift != "not kept")


def test_raw_units_train_as_well_as_scaled_ones_without_a_base_and_unkept(x, y):
    scaled = network([2, 4, 1], base_activation=None).fit_grid(x, keep=False)
    raw = network([2, 4, 1], base_activation=None).fit_grid(1e5 * x + 3e5, keep=False)
    assert train(raw, 1e5 * x + 3e5, y, 60) == pytest.approx(train(scaled, x, y, 60), rel=0.2)


# An optimizer of weights that are no more.


def test_an_optimizer_of_replaced_weights_is_told_once(x, y):
    model = network([2, 3, 1])
    old = torch.optim.AdamW(model.parameters(), lr=0.01)
    train(model, x, y, 2, old)
    model.refine(10)
    with pytest.warns(UserWarning, match="AdamW holds 2 weights that refine"):
        train(model, x, y, 1, old)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train(model, x, y, 1, old)
        train(model, x, y, 1)
        model.fit_grid(x)
        train(model, x, y, 1, torch.optim.SGD(model.parameters(), 0.1))


# States.


@pytest.mark.parametrize(
    "other", [{"grid_size": 6, "spline_order": 2}, {"grid_range": (-2.0, 2.0)}]
)
def test_a_state_of_a_network_with_another_grid_is_refused(other):
    """Weights of the same shape, and another function."""
    with pytest.raises(ValueError, match="the state is of a KAN2 with .*same arguments"):
        KAN2(1, 4, seed=0).load_state_dict(KAN2(1, 4, seed=1, **other).state_dict())


def test_a_state_of_the_same_network_is_taken(x):
    made, like = (KAN2(2, 4, grid_range=(-2, 2), seed=s) for s in (0, 1))
    like.load_state_dict(made.state_dict())
    assert torch.equal(like(x), made(x))


@pytest.mark.parametrize(
    ("saved", "told"),
    [
        ({"out_of_grid": "linear"}, "out_of_grid 'linear' .*has 'zero'"),
        ({"base_activation": torch.tanh}, "base_activation 'another function' .*has 'silu'"),
        ({"grid_size": 9, "spline_order": 1, "base_activation": None}, "grid_size 9 .*has 5"),
    ],
)
def test_a_state_tells_what_it_is_of(saved, told):
    state = KANLinear(2, 3, **saved).state_dict()
    with pytest.raises((ValueError, RuntimeError), match=told):
        KANLinear(2, 3).load_state_dict(state)


# What a layer is made of and given.


@pytest.mark.parametrize("wrong", [nn.SiLU, "gelu"])
def test_a_base_that_is_no_function_is_refused(wrong):
    with pytest.raises(ValueError, match="base_activation must be 'silu', None or a function"):
        KANLinear(2, 3, base_activation=wrong)


@pytest.mark.usefixtures("unchecked")
def test_arrays_are_named(x):
    layer = KANLinear(2, 3)
    for call in (layer, layer.fit_grid, KAN([2, 1]).fit_grid, layer.curve(0, 0)):
        with pytest.raises(ValueError, match="x must be a floating-point tensor, got ndarray"):
            call(x.numpy())


def test_a_layer_without_a_base_shows_it():
    assert "base_activation=None" in repr(KANLinear(2, 3, base_activation=None))
    assert "base_activation" not in repr(KANLinear(2, 3))


# Targets.


def test_a_turned_table_of_targets_is_refused(x):
    model = network([2, 3], dtype=torch.float64)
    targets = torch.rand(60, 3, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"y must have the shape .*\(60, 3\).*got \(3, 60\)"):
        Regression(model, x, targets.T)
    given = [targets, targets.reshape(-1), targets.reshape(60, 1, 3)]
    found = [Regression(model, x, y).residual() for y in given]
    assert all(torch.equal(found[0], r) for r in found)


def test_a_column_of_targets_is_taken_as_a_row(x, y):
    a, b = (Regression(KAN2(2, 4, seed=0), x, t) for t in (y, y[:, 0]))
    assert torch.equal(a.residual(), b.residual())


def test_targets_are_no_residual(x, y):
    with pytest.raises(ValueError, match="residual must be a function of f and X, got Tensor"):
        tangent(KAN2(2, 4, seed=0), x, y)


# What is said.


def test_a_step_that_is_not_promised_is_not_told(x, y):
    twice = torch.cat([x[:4], x[:4]])
    told = str(certificate(KAN2(2, 8, seed=0), twice, torch.cat([y[:4], y[:4]])))
    assert "no step is promised anything" in told
    told = str(certificate(KAN2(2, 8, seed=0), x[:4], y[:4]))
    rate = certificate(KAN2(2, 8, seed=0), x[:4], y[:4])
    assert f"takes {rate.step * rate.lambda0 / 2:.4g} of L away" in told


def test_a_report_names_the_conditions_that_nobody_measured(x, y):
    model = network([2, 8, 1], dtype=torch.float64)
    run = fit_gd(model, x[:6].double(), y[:6].double(), 5)
    (line,) = [each for each in run.monitor.report().splitlines() if "T1 linear rate" in each]
    assert line.startswith("KEPT")
    assert "conditions that nobody measured (Lipschitz Jacobian, wide enough, step size)" in line


def test_a_loop_that_diverges_is_told_the_step(x, y):
    bound = f"{1 / tangent(nn.Linear(2, 1), x[:3]).lambda_max:.4g}"
    with pytest.raises(NonFiniteError, match=f"lower the step size.*lambda_max = {bound}"):
        fit_gd(nn.Linear(2, 1), x[:3], y[:3], 500, eta=1e9)


# Equations.


def points(d=2):
    t = torch.linspace(-1, 1, 7, dtype=torch.float64)
    grid = torch.cartesian_prod(*[t] * d).reshape(-1, d)
    border = (grid.abs() == 1).any(1)
    return grid[~border], grid[border]


def test_a_degree_below_the_order_is_refused():
    with pytest.raises(ValueError, match="spline_order of at least 2, .*got 1"):
        PIKAN(KAN2(2, 4, spline_order=1, seed=0), PDEResidual.poisson(1.0), *points())
    flow = PDEResidual.advection_diffusion((1.0, 0.5), 0.0, 1.0)
    PIKAN(KAN2(2, 4, spline_order=1, seed=0), flow, *points())


@pytest.mark.parametrize("piecewise", ["relu", "degree 1"])
def test_a_model_without_second_derivatives_is_told(piecewise):
    torch.manual_seed(0)
    model = (
        nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 1))
        if piecewise == "relu"
        else KAN([2, 4, 1], spline_order=1, base_activation=None)
    ).double()
    problem = PIKAN(model, PDEResidual.poisson(1.0), *points())
    with pytest.warns(UserWarning, match="derivatives of order 2 are 0 at every point"):
        problem.check(torch.full((3, 2), 0.1234, dtype=torch.float64))


def test_points_outside_the_grid_are_told():
    inside, border = points()
    with pytest.warns(OutOfGridWarning, match="grid_range that holds the domain"):
        PIKAN(KAN2(2, 4, spline_order=5, seed=0), PDEResidual.poisson(1.0), 5 * inside, 5 * border)
    wide = KAN2(2, 4, spline_order=5, grid_range=(-5, 5), seed=0)
    PIKAN(wide, PDEResidual.poisson(1.0), 5 * inside, 5 * border)


def test_a_wrong_solution_of_a_right_equation_is_not_trusted():
    """u = 1 + x solves u'' = 0 and not u = 0 at both ends."""
    model = nn.Linear(1, 1).double()
    with torch.no_grad():
        model.weight.fill_(1)
        model.bias.fill_(1)
    problem = PIKAN(model, PDEResidual.poisson(0.0), *points(1))
    fresh = torch.tensor([[0.11], [0.53]], dtype=torch.float64)
    with pytest.warns(UserWarning, match="not solved: on the boundary 1.41 is left over"):
        problem.check(fresh)
    right = PIKAN(model, PDEResidual.poisson(0.0), *points(1), g=lambda x: 1 + x[:, 0])
    assert right.check(fresh, lambda x: 1 + x[:, 0]).trusted
    with pytest.warns(UserWarning, match="not solved: the relative L2 error is"):
        right.check(fresh, lambda x: 3 + x[:, 0])


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("name", ["f", "e", "k", "diffusivity"])
def test_values_at_points_are_no_coefficient(name):
    value = torch.rand(25)
    calls = {
        "f": lambda: PDEResidual.poisson(value), "e": lambda: PDEResidual.custom(e=value),
        "k": lambda: PDEResidual.helmholtz(value, 0.0), "diffusivity": lambda: PDEResidual.heat(value),
    }  # fmt: skip
    with pytest.raises(ValueError, match=rf"{name} must be a number or a function .*\(25,\)$"):
        calls[name]()


def test_a_model_is_no_problem():
    with pytest.raises(ValueError, match=r"Regression\(model, X, y\).*got KAN2"):
        fit_lbfgs(KAN2(2, 4, seed=0))
    problem = PIKAN(KAN2(2, 4, seed=0), PDEResidual.poisson(1.0), *points())
    with pytest.raises(ValueError, match="steps=500"):
        fit_gd(problem, 20)


# Pruning.


def test_rows_that_tell_no_edges_apart_are_refused(x):
    with pytest.raises(ValueError, match="x must tell edges apart .* 1 rows"):
        prune(network([2, 3, 1]), x[:1], keep=0.5)


def test_what_is_left_to_train_is_told(x):
    result = prune(network([2, 3, 1]), x, keep=0.5)
    live = sum(int((p != 0).sum()) for p in result.model.parameters() if p.ndim == 2)
    biases = sum(p.numel() for p in result.model.parameters() if p.ndim == 1)
    assert result.parameters_left - result.held == live + biases
    assert f"{live + biases} parameters to train" in str(result)


@pytest.mark.usefixtures("unchecked")
def test_an_estimator_is_told_where_its_network_is(x, y):
    model = KANRegressor(hidden=(), epochs=1).fit(x, y[:, 0])
    with pytest.raises(
        ValueError, match=r"network is model_, of inputs \(X - x_mean_\) / x_scale_"
    ):
        prune(model, x, keep=0.5)


# Estimators.


@pytest.mark.parametrize("estimator", [KANRegressor, KANClassifier])
def test_a_constant_feature_is_ignored(estimator, x, y):
    X = np.column_stack([x.numpy(), np.full(len(x), 3.0)])
    model = estimator(hidden=(3,), epochs=2, random_state=0).fit(X, y[:, 0].numpy() > 0)
    moved = X.copy()
    moved[:, 2] = 1e6
    ask = model.predict if estimator is KANRegressor else model.predict_proba
    assert np.array_equal(ask(X), ask(moved))


@pytest.mark.parametrize("scale", [1e-200, 1e200])
def test_the_unit_of_a_column_does_not_matter(scale, x, y):
    X, t = x.double().numpy(), y[:, 0].double().numpy()
    plain, other = (
        KANRegressor(hidden=(3,), epochs=2, random_state=0).fit(s * X, s * t).predict(s * X)
        for s in (1.0, scale)
    )
    np.testing.assert_allclose(other / scale, plain, rtol=1e-4, atol=1e-6)


def test_a_fit_that_diverges_names_its_step(x, y):
    with pytest.raises(NonFiniteError, match="choose a smaller lr than 1e\\+06"):
        KANRegressor(lr=1e6, epochs=20).fit(x, y[:, 0])
