"""The two-layer network of the theory: its numbers against scipy, autograd and brute-force quadrature."""

import copy
import math
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.interpolate import BSpline
from torch.func import functional_call, jacrev, vmap

from surefoot.kan import KAN2

THREE = torch.tensor([[-0.7, 0.2], [0.1, 0.5], [0.8, -0.3]], dtype=torch.float64)


def points(n, d, seed=0, width=1.0):
    g = torch.Generator().manual_seed(seed)
    return width * (2 * torch.rand(n, d, generator=g, dtype=torch.float64) - 1)


def jacobian_by_autograd(model, X):
    def f(parameters):
        return functional_call(model, parameters, (X,))

    J = jacrev(f)({k: v.detach() for k, v in model.named_parameters()})
    return torch.cat([J["a"].flatten(1), J["c"].flatten(1)], dim=1)


def splines(grid, coefficients, x, derivative=0):
    """One spline by scipy, zero outside its knots."""
    k = grid.order
    # k knots more on either side, as scipy's splines end k knots before the last.
    knots = grid.lo + grid.h * (np.arange(grid.size + 4 * k + 1) - 2 * k)
    spline = BSpline(knots, np.pad(coefficients, k), k, extrapolate=False)
    return np.nan_to_num((spline.derivative(derivative) if derivative else spline)(x))


@pytest.mark.parametrize("order", [1, 2, 3, 4, 5])
def test_output_is_a_sum_of_splines_of_sums_of_splines(order):
    # Some hidden values lie outside the grid, some beyond the last knot.
    model = KAN2(
        2, 6, spline_order=order, grid_size=4, grid_range=(-1, 1.5), init_scale=2.0, seed=1
    )
    X = points(40, 2, width=1.6)
    a, c = model.a.detach().numpy(), model.c.detach().numpy()
    expected = np.zeros(40)
    for q in range(6):
        z = sum(splines(model.grid, a[q, p], X[:, p].numpy()) for p in range(2))
        expected += splines(model.grid, c[q], z)
    assert model.outside(X).dead > 0
    np.testing.assert_allclose(
        model(X).detach().numpy(), expected / math.sqrt(6), atol=1e-12, rtol=0
    )


@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_tangent_matrix_and_jacobian_are_those_of_autograd(order):
    model, X = KAN2(3, 20, spline_order=order, seed=0), points(12, 3)
    J = jacobian_by_autograd(model, X)
    K, (in_a, in_c) = model.gram(X), model.gram(X, parts=True)
    columns = model.a.numel()
    scale = float((J @ J.T).norm())
    assert float((model.jacobian(X) - J).norm()) <= 1e-10 * float(J.norm())
    assert float((K - J @ J.T).norm()) <= 1e-10 * scale
    assert float((in_a - J[:, :columns] @ J[:, :columns].T).norm()) <= 1e-10 * scale
    assert float((in_c - J[:, columns:] @ J[:, columns:].T).norm()) <= 1e-10 * scale


def test_tangent_matrix_is_the_same_by_blocks_of_neurons(monkeypatch):
    model, X = KAN2(2, 30, seed=0), points(9, 2)
    whole = model.gram(X)
    monkeypatch.setattr("surefoot.kan._two_layer.rows.BLOCK", 7 * 9 * 2 * model.grid.bases)
    torch.testing.assert_close(model.gram(X), whole, rtol=1e-13, atol=1e-13)


def test_tangent_matrix_of_float32_parameters_is_computed_in_float64():
    single = KAN2(2, 16, seed=0, dtype=torch.float32)
    double = copy.deepcopy(single).double()
    X = points(8, 2)
    assert single.gram(X).dtype == torch.float64
    assert torch.equal(single.gram(X), double.gram(X))
    assert single(X.float()).dtype == torch.float32


@settings(max_examples=30, deadline=None)
@given(
    order=st.integers(1, 5), size=st.integers(1, 7), d=st.integers(1, 3), seed=st.integers(0, 999)
)
def test_derivatives_are_those_of_autograd(order, size, d, seed):
    model = KAN2(d, 4, spline_order=order, grid_size=size, init_scale=0.6, seed=seed)
    X = points(5, d, seed, width=1.3).requires_grad_()
    u, du, ddu = model.derivatives(X.detach())
    value = model(X)
    (slope,) = torch.autograd.grad(value.sum(), X, create_graph=True)
    bends = [
        torch.autograd.grad(slope[:, p].sum(), X, retain_graph=True)[0][:, p] for p in range(d)
    ]
    for ours, theirs in ((u, value), (du, slope), (ddu, torch.stack(bends, 1))):
        torch.testing.assert_close(
            ours, theirs, rtol=1e-9, atol=1e-9 * (1 + float(theirs.detach().abs().max()))
        )


def test_wide_limit_has_the_numbers_of_a_rule_of_200_hermite_nodes():
    # Specified to four digits; that rule itself is off by up to 3e-4.
    expected = torch.tensor([[4.5408, 0.4390, 0.2876], [0, 4.4541, 0.2435], [0, 0, 4.3779]])
    found = KAN2(2, 4, seed=0).gram_infinite(THREE)
    assert float((found.triu() - expected).abs().max()) <= 1e-3
    assert torch.equal(found, found.T)


@pytest.mark.parametrize(("order", "scale"), [(3, 0.5), (2, 0.9)])
def test_wide_limit_is_the_plain_double_integral(order, scale):
    model = KAN2(2, 4, spline_order=order, init_scale=scale, seed=0)
    grid = model.grid
    X = THREE[:2]
    eye = np.eye(grid.bases)
    Phi = np.hstack([np.array([splines(grid, e, X[:, p].numpy()) for e in eye]).T for p in (0, 1)])
    root = np.linalg.cholesky(scale**2 * Phi @ Phi.T)
    # The midpoint rule in whitened coordinates, where kinks run across the cells.
    t = np.linspace(-7, 7, 700, endpoint=False) + 0.01
    weight = np.exp(-(t**2) / 2) / math.sqrt(2 * math.pi) * 0.02
    first = root[0, 0] * t
    second = root[1, 0] * t[:, None] + root[1, 1] * t[None, :]
    total = 0.0
    for derivative, factor in ((0, 1.0), (1, float(Phi[0] @ Phi[1]))):
        for e in eye:
            inner = splines(grid, e, second.ravel(), derivative).reshape(second.shape) @ weight
            total += factor * float((weight * splines(grid, e, first, derivative)) @ inner)
    assert float(model.gram_infinite(X)[0, 1]) == pytest.approx(total, rel=1e-4)


def test_wide_limit_of_coinciding_and_dead_points():
    X = torch.tensor([[0.3, 0.1], [0.3, 0.1], [9.0, -9.0], [0.3, 0.1 + 1e-9]], dtype=torch.float64)
    model = KAN2(2, 4, seed=0)
    K = model.gram_infinite(X)
    assert float(K[0, 1]) == pytest.approx(float(K[0, 0]), rel=1e-8)
    assert float(K[0, 3]) == pytest.approx(float(K[0, 0]), rel=1e-6)
    # No base of the inputs is active: z = 0 and only the second layer has a gradient.
    at_zero = model.grid(torch.zeros(1, dtype=torch.float64))[0]
    assert float(K[2, 2]) == pytest.approx(float(at_zero @ at_zero), rel=1e-10)


@pytest.mark.parametrize("m", [1_000, 10_000, 100_000])
def test_tangent_matrix_approaches_its_wide_limit(m):
    model = KAN2(2, m, seed=3)
    limit = model.gram_infinite(THREE)
    distance = float((model.gram(THREE) - limit).norm() / limit.norm())
    assert distance <= 3 / math.sqrt(m)


@settings(max_examples=25, deadline=None)
@given(
    order=st.integers(2, 5),
    d=st.integers(1, 3),
    m=st.integers(1, 8),
    seed=st.integers(0, 999),
    far=st.floats(1e-3, 10.0),
)
def test_jacobian_moves_at_most_by_lambda(order, d, m, seed, far):
    model, X = KAN2(d, m, spline_order=order, seed=seed), points(6, d, seed, width=1.2)
    Lambda, before = model.hessian_bound(X, far), model.jacobian(X)
    g = torch.Generator().manual_seed(seed + 1)
    step = torch.randn(before.shape[1], generator=g, dtype=torch.float64)
    step *= far / step.norm()
    with torch.no_grad():
        theta = torch.nn.utils.parameters_to_vector(model.parameters())
        torch.nn.utils.vector_to_parameters(theta + step, model.parameters())
    moved = float((model.jacobian(X) - before).norm())
    assert moved <= Lambda * far * (1 + 1e-12)


def hessian_norm(model, x):
    """The 2-norm of the second derivatives of f(x) in the parameters, by autograd."""
    start = torch.nn.utils.parameters_to_vector(model.parameters()).detach()
    columns = model.a.numel()

    def f(theta):
        parts = {"a": theta[:columns].view_as(model.a), "c": theta[columns:].view_as(model.c)}
        return functional_call(model, parts, (x[None],))[0]

    return float(torch.linalg.matrix_norm(jacrev(jacrev(f))(start), 2))


def test_lambda_is_above_the_hessian_of_each_row():
    model, X = KAN2(2, 3, seed=5), points(5, 2, seed=2)
    bounds = [model.hessian_bound(x[None], 0.0) for x in X]
    assert all(hessian_norm(model, x) <= b for x, b in zip(X, bounds, strict=True))
    assert model.hessian_bound(X, 0.0) == pytest.approx(math.hypot(*bounds))


def test_lambda_is_attained():
    model, x = KAN2(1, 1, seed=0), torch.tensor([0.123], dtype=torch.float64)
    # z is a knot, where the curvature of the bases is largest, and c points along it.
    at = torch.tensor([-0.2 + 1e-9], dtype=torch.float64)
    with torch.no_grad():
        model.a.fill_(float(at))
        model.c.copy_(1e4 * model.grid(at, 2) / model.grid(at, 2).norm())
    assert hessian_norm(model, x) / model.hessian_bound(x[None], 0.0) == pytest.approx(1, abs=1e-3)


def test_lambda_grows_with_the_ball_and_shrinks_with_the_width():
    X = points(6, 2)
    model = KAN2(2, 64, seed=0)
    assert model.hessian_bound(X, 1.0) > model.hessian_bound(X, 0.0)
    assert model.hessian_bound(X, math.inf) == math.inf
    wide = KAN2(2, 6400, seed=0)
    assert wide.hessian_bound(X, 1.0) == pytest.approx(model.hessian_bound(X, 1.0) / 10, rel=0.4)


def test_no_lambda_where_slopes_jump():
    assert KAN2(2, 4, spline_order=1, seed=0).hessian_bound(points(3, 2), 1.0) == math.inf


def test_symmetric_start_is_zero_to_its_rounding():
    model, X = KAN2(2, 40, symmetric=True, seed=0), points(20, 2)
    assert torch.equal(model.a[:20], model.a[20:])
    assert torch.equal(model.c[:20], -model.c[20:])
    assert bool((model(X).abs() <= model.rounding(X)).all())
    features = model.features(X)
    size = torch.finfo(torch.float64).eps * features.phi.abs().sum(1) / math.sqrt(40)
    torch.testing.assert_close(model.rounding(X), size)


def test_seed_draws_from_a_generator_of_its_own():
    before = torch.random.get_rng_state()
    first, same, other, any_seed = (KAN2(2, 6, seed=s) for s in (0, 0, 1, None))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(first.a, same.a)
    assert torch.equal(first.c, same.c)
    assert not torch.equal(first.a, other.a)
    again = KAN2(2, 6, seed=any_seed.seed)
    assert torch.equal(again.a, any_seed.a)


def test_initial_scale():
    assert KAN2(2, 4, seed=0).init_scale == 0.5
    model = KAN2(8, 2000, seed=0)
    assert model.init_scale == pytest.approx(0.25)
    assert float(model.a.detach().std()) == pytest.approx(0.25, rel=0.02)
    assert float(model.c.detach().std()) == pytest.approx(1, rel=0.03)
    assert model.outside(points(50, 8)).z < 0.06


def test_outside_counts_inputs_hidden_values_and_dead_ones():
    model = KAN2(1, 2, seed=0)
    with torch.no_grad():
        model.a[0] = 1.0  # on the grid a constant 1, by the partition of unity
        model.a[1] = 5.0
    outside = model.outside(torch.tensor([[0.0], [1.5], [-9.0], [0.5]], dtype=torch.float64))
    assert outside.x == 0.5
    # z is (1, 5) at 0 and at .5, fades at 1.5 and is 0 at -9; the last knot is at 2.2.
    z = model.features(torch.tensor([[1.5]], dtype=torch.float64)).z[0]
    expected = 2 + float(z[0] > 1 + 1e-12) + float(z[1] > 1)
    assert outside.z == pytest.approx(expected / 8, abs=2 / 8)
    assert outside.dead == (2 + float(z[1] > 2.2)) / 8


def test_is_a_module_like_any_other():
    model, X = KAN2(2, 6, seed=0), points(7, 2)
    assert [name for name, _ in model.named_parameters()] == ["a", "c"]
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(twin(X), model(X))
    other = KAN2(2, 6, seed=1)
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(X), model(X))
    one_by_one = vmap(lambda x: model(x[None])[0])(X)
    torch.testing.assert_close(one_by_one, model(X), rtol=1e-13, atol=1e-13)
    assert "spline_order=3" in repr(model)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("d", {"d": 0}),
        ("m", {"m": 2.5}),
        ("grid_size", {"grid_size": 0}),
        ("spline_order", {"spline_order": 6}),
        ("grid_range", {"grid_range": (1.0, -1.0)}),
        ("grid_range", {"grid_range": 3}),
        ("init_scale", {"init_scale": 0.0}),
        ("init_scale", {"init_scale": math.nan}),
        ("m must be even", {"m": 3, "symmetric": True}),
        ("symmetric", {"symmetric": "yes"}),
        ("seed", {"seed": -1}),
        ("dtype", {"dtype": torch.bfloat16}),
    ],
)
def test_settings_that_are_not_allowed_are_named(name, settings):
    with pytest.raises(ValueError, match=name.replace("[", r"\[")):
        KAN2(**({"d": 2, "m": 4} | settings))


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("X", "says"),
    [
        (torch.zeros(3, 3), r"shape \(n, 2\)"),
        (torch.zeros(2), r"shape \(n, 2\)"),
        (torch.zeros(3, 2, dtype=torch.int64), "floating"),
        (torch.tensor([[0.0, 0.0], [0.0, math.nan]]), "row 1"),
        (torch.tensor([[0.0, math.inf]]), "row 0"),
        ([[0.0, 0.0]], "list"),
    ],
)
@pytest.mark.parametrize(
    "ask",
    ["forward", "gram", "jacobian", "gram_infinite", "derivatives", "features", "outside"],
)
def test_points_that_are_not_allowed_are_named(X, says, ask):
    model = KAN2(2, 4, seed=0)
    name = "x" if ask == "forward" else "X"
    with pytest.raises(ValueError, match=rf"^{name} must.*{says}"):
        getattr(model, ask)(X)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("R", [-1.0, math.nan, "far"])
def test_radius_that_is_not_allowed_is_named(R):
    with pytest.raises(ValueError, match="R must"):
        KAN2(2, 4, seed=0).hessian_bound(THREE, R)
