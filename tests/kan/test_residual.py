"""Residuals of equations: closed-form solutions leave nothing, and both roads to derivatives agree."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.kan.problems import Hidden
from torch import nn

from surefoot.kan import KAN2, PDEResidual

pi = math.pi


def points(n, d, seed=0):
    g = torch.Generator().manual_seed(seed)
    return 2 * torch.rand(n, d, generator=g, dtype=torch.float64) - 1


class Known(nn.Module):
    """A function of the points as a module, with one parameter that multiplies it."""

    def __init__(self, u):
        super().__init__()
        self.u, self.factor = u, nn.Parameter(torch.ones((), dtype=torch.float64))

    def forward(self, x):
        return self.factor * self.u(x)


def bumps(x):
    return torch.sin(pi * x[:, 0]) * torch.sin(2 * pi * x[:, 1])


def moving(x, kappa=0.3, v=0.7):
    """A wave in x[0] that is carried along x[1], the time, and fades."""
    t = x[:, 1]
    return torch.exp(-kappa * pi**2 * t) * torch.sin(pi * (x[:, 0] - v * t))


SOLVED = {
    "poisson": (PDEResidual.poisson(lambda x: 5 * pi**2 * bumps(x)), bumps),
    "helmholtz": (PDEResidual.helmholtz(3.0, lambda x: (9 - 5 * pi**2) * bumps(x)), bumps),
    "helmholtz, k of x": (
        PDEResidual.helmholtz(
            lambda x: 1 + x[:, 0] ** 2,
            lambda x: ((1 + x[:, 0] ** 2) ** 2 - 5 * pi**2) * bumps(x),
        ),
        bumps,
    ),
    "heat": (PDEResidual.heat(0.3), lambda x: moving(x, v=0.0)),
    "heat, time first": (PDEResidual.heat(0.3, time=0), lambda x: moving(x.flip(1), v=0.0)),
    "heat, source, kappa of x": (
        # u = x^2 t: u_t = x^2, Lap u = 2 t.
        PDEResidual.heat(
            lambda x: 1 + x[:, 0] ** 2,
            lambda x: x[:, 0] ** 2 - (1 + x[:, 0] ** 2) * 2 * x[:, 1],
        ),
        lambda x: x[:, 0] ** 2 * x[:, 1],
    ),
    "advection-diffusion": (
        PDEResidual.advection_diffusion([0.6, 0.0], 0.3),
        lambda x: torch.exp(2 * x[:, 0]) + torch.cos(0 * x[:, 1]),
    ),
    "advection-diffusion in time": (
        PDEResidual.advection_diffusion([0.7], 0.3, time=-1),
        moving,
    ),
    "advection, v of x": (
        # u = x y: v = (x, -y) leaves x y - x y = 0.
        PDEResidual.advection_diffusion(lambda x: x * torch.tensor([1.0, -1.0]), 0.0),
        lambda x: x[:, 0] * x[:, 1],
    ),
    "custom": (
        # u = exp(x + 2 y), every coefficient another function of the point.
        PDEResidual.custom(
            e=lambda x: x[:, 1],
            b=lambda x: torch.stack([x[:, 0], x[:, 1] ** 2], 1),
            a=(1.0, -3.0),
            f=lambda x: (
                (x[:, 1] + x[:, 0] + 2 * x[:, 1] ** 2 + 1 - 12) * torch.exp(x[:, 0] + 2 * x[:, 1])
            ),
        ),
        lambda x: torch.exp(x[:, 0] + 2 * x[:, 1]),
    ),
}


@pytest.mark.parametrize("name", SOLVED)
def test_a_solution_leaves_nothing(name):
    pde, u = SOLVED[name]
    X = points(30, 2)
    left = pde.residual(Known(u), X)
    assert float(left.detach().abs().max()) < 1e-11
    # Another function is no solution of it, up to constants of equations without e.
    wrong = pde.residual(Known(lambda x: u(x) + torch.sin(3 * x[:, 0]) + x[:, 1] ** 3), X)
    assert float(wrong.detach().abs().max()) > 0.1


@pytest.mark.parametrize("name", SOLVED)
@pytest.mark.parametrize("order", [3, 5])
def test_closed_forms_are_those_of_autograd(name, order):
    pde, _ = SOLVED[name]
    model, X = KAN2(2, 5, spline_order=order, init_scale=0.7, seed=1), points(20, 2, 3)
    closed, general = pde.residual(model, X), pde.residual(Hidden(model), X)
    torch.testing.assert_close(closed, general, rtol=1e-10, atol=1e-10)
    ours = torch.autograd.grad(closed.square().sum(), list(model.parameters()))
    theirs = torch.autograd.grad(general.square().sum(), list(model.parameters()))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9 * float(other.abs().max()))


@settings(max_examples=25, deadline=None)
@given(
    d=st.integers(1, 3),
    seed=st.integers(0, 999),
    which=st.sampled_from(["e", "b", "a", "eb", "ea", "ba", "eba"]),
)
def test_any_coefficients_agree_with_autograd(d, seed, which):
    g = torch.Generator().manual_seed(seed)
    numbers = torch.randn(2 * d + 1, generator=g, dtype=torch.float64).tolist()
    terms = {"e": numbers[0], "b": numbers[1 : d + 1], "a": numbers[d + 1 :]}
    pde = PDEResidual.custom(**{k: terms[k] for k in which}, f=0.5)
    assert pde.order == (2 if "a" in which else 1 if "b" in which else 0)
    model, X = KAN2(d, 3, spline_order=4, seed=seed), points(6, d, seed)
    torch.testing.assert_close(
        pde.residual(model, X), pde.residual(Hidden(model), X), rtol=1e-10, atol=1e-10
    )


def test_orders():
    assert PDEResidual.poisson(0.0).order == 2
    assert PDEResidual.heat(1.0).order == 2
    assert PDEResidual.advection_diffusion(1.0, 0.0).order == 1
    # A function may be 0 at these points and something at others.
    assert PDEResidual.custom(a=lambda x: 0 * x).order == 2


def test_a_linear_model_has_no_second_derivative():
    model = nn.Linear(2, 1).double()
    X = points(4, 2)
    left = PDEResidual.poisson(1.0).residual(model, X)
    assert torch.equal(left.detach(), torch.full((4,), -1.0, dtype=torch.float64))


def test_the_points_of_the_caller_keep_their_flags():
    X = points(4, 2)
    PDEResidual.poisson(1.0).residual(Known(bumps), X)
    PDEResidual.custom(e=lambda x: x.mul_(2)[:, 0]).residual(Known(bumps), X)
    assert not X.requires_grad
    assert torch.equal(X, points(4, 2))


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("says", "make"),
    [
        ("f must", lambda: PDEResidual.poisson("zero")),
        ("f must", lambda: PDEResidual.poisson(math.nan)),
        ("k must", lambda: PDEResidual.helmholtz(None, 0.0)),
        ("diffusivity must", lambda: PDEResidual.heat(0.0)),
        ("diffusivity must", lambda: PDEResidual.advection_diffusion([1.0, 0.0], -1.0)),
        ("velocity must", lambda: PDEResidual.advection_diffusion("fast", 1.0)),
        ("time must", lambda: PDEResidual.heat(1.0, time=0.5)),
        ("e must", lambda: PDEResidual.custom(e=math.inf)),
        ("b must", lambda: PDEResidual.custom(b=[1.0, math.nan])),
        ("a must", lambda: PDEResidual.custom(a=[[1.0]])),
        ("e, b and a must", lambda: PDEResidual.custom()),
    ],
)
def test_equations_that_are_not_allowed_are_named(says, make):
    with pytest.raises(ValueError, match=f"^{says}"):
        make()


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("says", "pde", "X"),
    [
        (r"f must have shape \(4,\)", PDEResidual.poisson(lambda x: x), points(4, 2)),
        ("f must be finite.* point 0", PDEResidual.poisson(lambda x: x[:, 0] / 0), points(4, 2)),
        ("f must be a tensor", PDEResidual.poisson(lambda x: 1.0), points(4, 2)),
        ("a must be one number or 2", PDEResidual.custom(a=[1.0, 2.0, 3.0]), points(4, 2)),
        (r"b must give shape \(4, 2\)", PDEResidual.custom(b=lambda x: x[:, 0]), points(4, 2)),
        ("b must be finite", PDEResidual.custom(b=lambda x: x / 0), points(4, 2)),
        (r"e must have shape \(4,\)", PDEResidual.custom(e=lambda x: x), points(4, 2)),
        ("velocity must be one", PDEResidual.advection_diffusion([1.0, 2.0], 1.0, time=1), points(4, 2)),
        ("diffusivity must be at least 0", PDEResidual.heat(lambda x: -1 - x[:, 0] ** 2), points(4, 2)),
        ("time must be an input", PDEResidual.heat(1.0, time=2), points(4, 2)),
        ("time is the only input", PDEResidual.heat(1.0), points(4, 1)),
        ("x must have shape", PDEResidual.poisson(0.0), points(4, 3)),
        ("x must be finite", PDEResidual.poisson(0.0), points(4, 2) / 0),
        ("x must hold floating", PDEResidual.poisson(0.0), torch.zeros(4, 2, dtype=torch.int64)),
        ("x must have shape", PDEResidual.poisson(0.0), torch.zeros(4)),
    ],
)  # fmt: skip
def test_functions_and_points_that_are_not_allowed_are_named(says, pde, X):
    with pytest.raises(ValueError, match=f"^{says}"):
        pde.residual(KAN2(X.shape[-1] if "only" in says else 2, 3, seed=0), X)


def test_a_model_of_two_outputs_is_refused():
    with pytest.raises(ValueError, match="model must give one number a point"):
        PDEResidual.poisson(0.0).residual(nn.Linear(2, 2).double(), points(4, 2))
