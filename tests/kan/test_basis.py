"""B-spline bases against scipy's, their derivatives, and the constants of the theorems."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.interpolate import BSpline

from surefoot.kan import Grid
from surefoot.kan._basis.bspline import dense_splines, largest_norm, spline_bases

ORDERS = range(1, 6)


def scipys(x, grid, derivative=0):
    """Each basis by scipy on its own knots: 0 outside them, right-continuous."""
    t = grid.lo + grid.h * (np.arange(grid.size + 2 * grid.order + 1) - grid.order)
    columns = []
    for j in range(grid.bases):
        knots = t[j : j + grid.order + 2]
        basis = BSpline.basis_element(knots, extrapolate=True)
        values = basis.derivative(derivative)(x) if derivative else basis(x)
        columns.append(np.where((x >= knots[0]) & (x < knots[-1]), values, 0.0))
    return np.stack(columns, -1)


@pytest.mark.parametrize("size", [3, 5, 20, 200])
@pytest.mark.parametrize("order", ORDERS)
def test_bases_and_derivatives_are_scipys(order, size):
    grid = Grid(-1.0, 1.0, size, order)
    reach = 1 + (order + 1) * grid.h
    x = np.random.default_rng(0).uniform(-reach, reach, 400)
    for r in range(min(order, 3) + 1):
        found = grid(torch.from_numpy(x), r).numpy()
        np.testing.assert_allclose(found * grid.h**r, scipys(x, grid, r) * grid.h**r, atol=1e-12)
    assert not grid(torch.from_numpy(x), order + 1).any()


@pytest.mark.parametrize("size", [3, 5, 20, 200])
@pytest.mark.parametrize("order", ORDERS)
def test_float32_bases_are_right_to_a_rounding_at_every_grid_size(order, size):
    """The plain float32 coordinate (x - lo) / h - cell is off by 9e-6 at G = 200."""
    grid = Grid(-1.0, 1.0, size, order)
    x = torch.rand(2000, generator=torch.Generator().manual_seed(0)) * 2.4 - 1.2
    exact = scipys(x.double().numpy(), grid)
    np.testing.assert_allclose(grid(x).numpy(), exact, atol=2e-7)
    lo, h = (torch.tensor([v], dtype=torch.float64) for v in (-1.0, grid.h))
    dense, _ = dense_splines(x[:, None], lo, h, size, order, "zero", False)
    np.testing.assert_allclose(dense[..., 0].T.numpy(), exact, atol=4e-7)


@pytest.mark.parametrize("order", ORDERS)
def test_at_the_upper_end_the_bases_still_sum_to_one(order):
    grid = Grid(-1.0, 1.0, 4, order)
    at = torch.tensor([-1.0, -0.5, 0.0, 1.0], dtype=torch.float64)
    np.testing.assert_allclose(grid(at).sum(-1).numpy(), 1.0, atol=1e-15)


def test_the_bounds_of_bases_are_reached_and_never_passed():
    """B_r = sup |b^(r)|_2, over a fine sweep of one cell."""
    u = torch.linspace(0, 1, 20001, dtype=torch.float64)[:-1]
    for order in ORDERS:
        grid = Grid(0.0, 20.0, 20, order)
        for r in range(order + 1):
            norms = grid(10 + u, r).norm(dim=-1)
            assert norms.max() <= largest_norm(order, r) * (1 + 1e-12)
            assert norms.max() >= largest_norm(order, r) * (1 - 1e-3)
    cubic = [largest_norm(3, r) for r in range(4)]
    np.testing.assert_allclose(cubic, [0.5**0.5, 0.901388, 6**0.5, 20**0.5], rtol=1e-6)


@given(
    st.integers(1, 5),
    st.integers(1, 40),
    st.floats(-1e3, 1e3),
    st.floats(1e-2, 1e3),
    st.floats(-0.2, 1.2),
)
def test_a_spline_is_a_partition_of_unity_inside_and_less_outside(order, size, lo, width, where):
    grid = Grid(lo, lo + width, size, order)
    x = torch.tensor([lo + where * width], dtype=torch.float64)
    bases = grid(x)
    total = float(bases.sum())
    assert (bases >= -1e-12).all()
    if 0.001 <= where <= 0.999:
        assert total == pytest.approx(1.0, abs=1e-9)
    else:
        assert total <= 1 + 1e-9


@pytest.mark.parametrize("policy", ["clamp", "linear"])
@pytest.mark.parametrize("order", ORDERS)
def test_beyond_the_grid_values_are_held_or_go_on_straight(order, policy):
    lo, h, size = -1.0, 0.5, 4
    inside = torch.tensor([-1.0, 1.0], dtype=torch.float64)
    x = torch.tensor([-3.0, 2.5], dtype=torch.float64, requires_grad=True)
    weights = torch.randn(
        size + order, dtype=torch.float64, generator=torch.Generator().manual_seed(1)
    )
    value = spline_bases(x, lo, h, size, order, policy=policy) @ weights
    ends = spline_bases(inside, lo, h, size, order, policy=policy) @ weights
    step = 1e-6
    near = spline_bases(inside + torch.tensor([step, -step]), lo, h, size, order) @ weights
    slope = (near - ends) / torch.tensor([step, -step])
    expected = ends if policy == "clamp" else ends + slope * (x.detach() - inside)
    torch.testing.assert_close(value.detach(), expected, atol=1e-4, rtol=1e-4)
    (gradient,) = torch.autograd.grad(value.sum(), x)
    torch.testing.assert_close(
        gradient, torch.zeros(2).double() if policy == "clamp" else slope, atol=1e-4, rtol=1e-4
    )


def test_nan_stays_nan():
    grid = Grid()
    for r in range(4):
        assert grid(torch.tensor([float("nan")]), r).isnan().any()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"size": 0}, "grid_size"),
        ({"order": 6}, "spline_order"),
        ({"order": 0}, "spline_order"),
        ({"lo": 1.0}, "grid_range"),
        ({"hi": float("inf")}, "grid_range"),
    ],
)
def test_a_grid_that_is_none_is_refused_by_name(arguments, named):
    with pytest.raises(ValueError, match=named):
        Grid(**arguments)
