"""Physics-informed problems: closed forms against autograd, the bound on curvature, the fresh check."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.kan.problems import Hidden
from torch import nn
from torch.func import functional_call, grad, jacrev, vmap

from surefoot.errors import NonFiniteError
from surefoot.guarantee import Verdict
from surefoot.kan import KAN2, PIKAN, PDEResidual, fit_gd, fit_lbfgs, forecast, tangent
from surefoot.kan.guarantee import RATE
from surefoot.record import Record

pi = math.pi
POISSON = PDEResidual.poisson(
    lambda x: 2 * pi**2 * torch.sin(pi * x[:, 0]) * torch.sin(pi * x[:, 1])
)
MIXED = PDEResidual.custom(
    e=lambda x: 1 + x[:, 0],
    b=lambda x: torch.stack([x[:, 1], -2 + 0 * x[:, 0]], 1),
    a=lambda x: torch.stack([1 + x[:, 0] ** 2, x[:, 1]], 1),
    f=lambda x: x[:, 0] * x[:, 1],
)
DRIFT = PDEResidual.custom(e=0.5, b=[1.0, -2.0])


def points(n, d, seed=0):
    g = torch.Generator().manual_seed(seed)
    return 2 * torch.rand(n, d, generator=g, dtype=torch.float64) - 1


def border(n):
    """n points of the edge of the square, equally far apart."""
    t = torch.arange(n, dtype=torch.float64) * 4 / n
    side, along = t.floor(), 2 * (t - t.floor()) - 1
    one = torch.ones_like(t)
    x = torch.where(
        side == 0, along, torch.where(side == 1, one, torch.where(side == 2, -along, -one))
    )
    y = torch.where(
        side == 0, -one, torch.where(side == 1, along, torch.where(side == 2, one, -along))
    )
    return torch.stack([x, y], 1)


def problem(pde=POISSON, order=5, m=12, seed=0, **more):
    model = KAN2(2, m, spline_order=order, seed=seed)
    return PIKAN(model, pde, points(9, 2, 1), border(8), **more)


def residual_by_autograd(problem, parameters):
    """r as its formula says, every derivative of u by torch.func."""

    def u(x):
        return functional_call(problem.model, parameters, (x[None],))[0]

    x = problem.interior
    slope = vmap(grad(u))(x)
    bend = vmap(lambda y: torch.diagonal(jacrev(grad(u))(y)))(x)
    of = problem.pde.coefficients(x)
    Du = of.e * vmap(u)(x) + (of.b * slope).sum(1) + (of.a * bend).sum(1)
    w_r, w_b = problem.weights
    inside = math.sqrt(w_r / len(x)) * (Du - problem.pde.source(x))
    values = vmap(u)(problem.boundary) - problem.boundary_values("boundary", problem.boundary)
    return torch.cat([inside, math.sqrt(w_b / len(problem.boundary)) * values])


@pytest.mark.parametrize(("pde", "order"), [(POISSON, 5), (POISSON, 3), (MIXED, 4), (DRIFT, 3)])
def test_jacobian_and_tangent_matrix_are_those_of_autograd(pde, order):
    p = problem(pde, order, g=lambda x: x[:, 0], weights=(2.0, 30.0))
    fixed = {k: v.detach() for k, v in p.model.named_parameters()}
    r = residual_by_autograd(p, fixed)
    torch.testing.assert_close(p.residual().detach(), r, rtol=1e-11, atol=1e-11)
    assert float(p.loss().detach()) == pytest.approx(float(r @ r) / 2)
    parts = jacrev(lambda q: residual_by_autograd(p, q))(fixed)
    J = torch.cat([parts["a"].flatten(1), parts["c"].flatten(1)], 1)
    assert float((p.jacobian() - J).norm()) <= 1e-10 * float(J.norm())
    assert float((p.gram() - J @ J.T).norm()) <= 1e-10 * float((J @ J.T).norm())


def test_another_model_goes_through_autograd():
    p = problem()
    other = PIKAN(Hidden(p.model), POISSON, p.interior, p.boundary)
    torch.testing.assert_close(other.residual(), p.residual(), rtol=1e-10, atol=1e-10)
    assert float((other.jacobian() - p.jacobian()).norm()) <= 1e-9 * float(p.jacobian().norm())
    torch.testing.assert_close(other.gram(), p.gram(), rtol=1e-9, atol=1e-9)
    assert other.hessian_bound(1.0) == math.inf
    assert other.spline_order is other.width is other.dead() is None


def test_tangent_matrix_by_blocks_of_neurons_and_with_a_layer_frozen(monkeypatch):
    p = problem()
    whole, J = p.gram(), p.jacobian()
    monkeypatch.setattr("surefoot.kan._two_layer.rows.BLOCK", 5 * 17 * 2 * p.model.grid.bases)
    torch.testing.assert_close(p.gram(), whole, rtol=1e-12, atol=1e-12)
    p.model.a.requires_grad_(False)
    outer = PIKAN(p.model, POISSON, p.interior, p.boundary)
    assert len(outer.parameters) == 1
    torch.testing.assert_close(outer.jacobian(), J[:, p.model.a.numel() :], rtol=1e-9, atol=1e-9)


@settings(max_examples=25, deadline=None)
@given(
    pde=st.sampled_from([POISSON, MIXED, DRIFT, PDEResidual.custom(e=2.0)]),
    order=st.integers(2, 5),
    m=st.integers(1, 6),
    seed=st.integers(0, 999),
    far=st.floats(1e-3, 3.0),
)
def test_jacobian_moves_at_most_by_lambda(pde, order, m, seed, far):
    p = problem(pde, order, m, seed)
    Lambda, before = p.hessian_bound(far), p.jacobian()
    assert math.isfinite(Lambda) == (order >= pde.order + 2)
    g = torch.Generator().manual_seed(seed)
    step = torch.randn(before.shape[1], generator=g, dtype=torch.float64)
    step *= far / step.norm()
    with torch.no_grad():
        theta = torch.nn.utils.parameters_to_vector(p.parameters)
        torch.nn.utils.vector_to_parameters(theta + step, p.parameters)
    assert float((p.jacobian() - before).norm()) <= Lambda * far


def test_jacobian_of_a_cubic_and_a_second_order_equation_jumps():
    # One neuron with z at a knot: phi''' has another value on either side.
    model = KAN2(2, 1, spline_order=3, seed=0)
    with torch.no_grad():
        model.a.copy_(torch.linspace(-0.3, 0.1, model.grid.bases).expand_as(model.a))
    p = PIKAN(model, POISSON, points(1, 2, 3), border(4))
    knot = -0.2
    z = float(model.features(p.interior).z)
    jacobians = []
    for side in (-1e-9, 1e-9):
        with torch.no_grad():
            # By the partition of unity a constant on the coefficients of one input moves z by as much.
            model.a[0, 0] += knot + side - z
        z = knot + side
        jacobians.append(p.jacobian())
    assert float((jacobians[1] - jacobians[0]).norm()) > 1e-2 * float(jacobians[0].norm())
    assert p.hessian_bound(0.0) == math.inf


@pytest.mark.parametrize(("order", "promised"), [(3, False), (4, True)])
def test_the_degree_that_the_equation_needs(order, promised):
    run = fit_gd(problem(order=order, m=16), steps=3, every=3)
    conditions = {a.name: a for a in run.certificates()[0].assumptions}
    assert conditions["Lipschitz Jacobian"].holds is promised
    assert conditions["Lipschitz Jacobian"].measured == order
    if not promised:
        assert run.certificates()[0].verdict == Verdict.NOT_PROMISED
        assert "Lipschitz Jacobian" in run.certificates()[0].reason


class TestFourth:
    """T1 with the residual of an equation: -u'' = f on [-1, 1] with a right side small enough."""

    @staticmethod
    def problem(kind=PIKAN, scale=1e-3):
        model = KAN2(1, 64, spline_order=5, symmetric=True, seed=0)
        x = torch.linspace(-0.8, 0.8, 4, dtype=torch.float64)[:, None]
        ends = torch.tensor([[-1.0], [1.0]], dtype=torch.float64)
        pde = PDEResidual.poisson(lambda x: scale * torch.sin(pi * x[:, 0]))
        return kind(model, pde, x, ends)

    @staticmethod
    def rate(run):
        return next(c for c in run.certificates() if c.name == RATE)

    def test_kept(self):
        run = fit_gd(self.problem(), steps=40, mode="certified", every=20)
        assert self.rate(run).verdict == Verdict.KEPT, self.rate(run).reason
        assert self.problem().certificate().certified
        assert run.violations == 0
        # And it says something: the loss has to fall by four per cent a step.
        assert run.eta * run.local_rate.lambda0 / 2 > 0.04

    def test_broken_by_a_gradient_that_forgets_the_boundary(self):
        class Forgetful(PIKAN):
            def residual(self):
                r = super().residual()
                return torch.cat([r[:-2].detach(), r[-2:]]) if self.off else r

        Forgetful.off = False
        p = self.problem(Forgetful)
        Forgetful.off = True
        run = fit_gd(p, steps=20, mode="certified", every=10)
        assert self.rate(run).verdict == Verdict.BROKEN

    def test_not_promised_where_the_right_side_is_large(self):
        assert not self.problem(scale=1.0).certificate().certified
        run = fit_gd(self.problem(scale=1.0), steps=3, every=3)
        assert self.rate(run).verdict == Verdict.NOT_PROMISED
        assert "wide enough" in self.rate(run).reason


def test_forecast_follows_gradient_descent():
    p = PIKAN(KAN2(2, 256, spline_order=5, seed=0), POISSON, points(20, 2, 4), border(8))
    T = tangent(p)
    r0 = p.residual().detach()
    run = fit_gd(p, steps=60, every=60)
    ahead = forecast(T, r0, run.eta, 60)
    assert float(run.losses[60]) == pytest.approx(float(ahead[60]), rel=0.5)
    assert float(run.losses[60]) < 0.05 * float(run.losses[0])


def test_rounding_floor_is_above_what_rounding_does():
    p = problem(m=60)
    exact = p.residual().detach()
    errors = []
    for seed in range(5):
        order = torch.randperm(60, generator=torch.Generator().manual_seed(seed))
        with torch.no_grad():
            p.model.a.copy_(p.model.a[order])
            p.model.c.copy_(p.model.c[order])
        errors.append(float((p.residual().detach() - exact).square().sum() / 2))
    assert 0 < max(errors) <= p.rounding_floor()
    assert p.rounding_floor() < 1e-20 * float(p.loss().detach())


def test_groups_dead_and_facts():
    p = problem(weights=(3.0, 7.0))
    (first, inside), (second, edge) = p.groups()
    assert (first, second) == (0, 9)
    np.testing.assert_array_equal(inside, p.interior.numpy())
    np.testing.assert_array_equal(edge, p.boundary.numpy())
    x, z = p.dead()
    assert x == 0
    assert 0 <= z < 0.2
    record = Record()
    p.note(record, 0, "arm")
    told = {k: v.all for k, v in record.facts.items()}
    assert told == {
        "arm.pde": ("poisson",), "arm.pde_order": (2,), "arm.spline_order": (5,), "arm.width": (12,),
        "arm.weight_interior": (3.0,), "arm.weight_boundary": (7.0,), "arm.interior": (9,),
        "arm.boundary": (8,),
    }  # fmt: skip


def test_coinciding_points_make_the_tangent_matrix_singular():
    x = points(5, 2, 1)
    p = PIKAN(KAN2(2, 16, spline_order=5, seed=0), POISSON, torch.cat([x, x[:1]]), border(4))
    values = torch.linalg.eigvalsh(p.gram())
    assert float(values[0]) <= 1e-12 * float(values[-1])
    # A point of the equation that is also one of the boundary asks for two different things.
    p = PIKAN(KAN2(2, 16, spline_order=5, seed=0), POISSON, border(4), border(4))
    values = torch.linalg.eigvalsh(p.gram())
    assert float(values[0]) > 1e-9 * float(values[-1])


@pytest.mark.parametrize("g", [None, 0.5, lambda x: x[:, 0], torch.arange(8.0), np.arange(8)])
def test_boundary_values(g):
    p = problem(g=g)
    expected = {type(None): torch.zeros(8), float: torch.full((8,), 0.5)}.get(
        type(g), p.boundary[:, 0] if callable(g) else torch.arange(8.0)
    )
    r = p.residual().detach()[9:]
    u = p.model(p.boundary).detach()
    torch.testing.assert_close(r, math.sqrt(100 / 8) * (u - expected.double()))


class TestFreshPoints:
    @staticmethod
    def exact(x):
        return torch.sin(pi * x[:, 0]) * torch.sin(pi * x[:, 1])

    def test_few_points_are_interpolated_and_that_is_said(self):
        p = PIKAN(KAN2(2, 24, spline_order=5, seed=0), POISSON, points(16, 2, 1), border(8))
        fit_lbfgs(p, 60)
        with pytest.warns(UserWarning, match="16 points only"):
            found = p.check(points(300, 2, 2), self.exact, boundary=border(100))
        assert found.interpolated
        assert not found.trusted
        assert found.ratio > 10
        assert found.error > 0.3
        assert "Add points" in str(found)
        assert "relative L2 error" in str(found)

    def test_a_solution_passes(self):
        class Exact(nn.Module):
            def __init__(self):
                super().__init__()
                self.s = nn.Parameter(torch.tensor(1.0, dtype=torch.float64))

            def forward(self, x):
                return self.s * TestFreshPoints.exact(x)

        p = PIKAN(Exact(), POISSON, points(16, 2, 1), border(8))
        found = p.check(points(50, 2, 2), self.exact, boundary=border(100))
        assert found.trusted
        assert found.error < 1e-12
        assert found.fresh < 1e-10
        # Nothing at all is no solution, and is equally wrong everywhere.
        with torch.no_grad():
            p.model.s.fill_(1e-3)
        with pytest.warns(UserWarning, match="not solved: 100%|not solved: 99"):
            found = p.check(points(50, 2, 2))
        assert found.unsolved
        assert not found.interpolated
        assert found.error is found.fresh_boundary is None

    def test_a_boundary_that_is_met_at_its_points_only(self):
        class Teeth(nn.Module):
            """Harmonic, and 0 at eight points of the boundary."""

            def __init__(self):
                super().__init__()
                self.s = nn.Parameter(torch.tensor(1.0, dtype=torch.float64))

            def forward(self, x):
                return self.s * x[:, 0] * x[:, 1]

        at = torch.tensor([[1.0, 0], [-1, 0], [0, 1], [0, -1]], dtype=torch.float64)
        p = PIKAN(Teeth(), PDEResidual.poisson(0.0), points(16, 2, 1), at)
        assert p.check(points(50, 2, 2)).trusted
        with pytest.warns(UserWarning, match="boundary value is not met"):
            assert p.check(points(50, 2, 2), boundary=border(40)).interpolated

    @pytest.mark.usefixtures("unchecked")
    @pytest.mark.parametrize(
        ("says", "arguments"),
        [
            (
                "fresh must hold other points.*row 1",
                lambda p: {"fresh": torch.stack([0 * p.interior[0], p.interior[3]])},
            ),
            ("fresh must have shape", lambda p: {"fresh": points(4, 3)}),
            ("fresh must have at least one", lambda p: {"fresh": points(0, 2)}),
            ("exact must have shape", lambda p: {"fresh": points(4, 2), "exact": lambda x: x}),
            ("exact must not be 0", lambda p: {"fresh": points(4, 2), "exact": lambda x: 0 * x[:, 0]}),
            ("boundary must have shape", lambda p: {"fresh": points(4, 2), "boundary": points(4, 1)}),
            ("g must be a function", lambda p: {"fresh": points(4, 2), "boundary": border(5)}),
        ],
    )  # fmt: skip
    def test_bad_input_is_named(self, says, arguments):
        p = problem(g=torch.zeros(8))
        with pytest.raises(ValueError, match=f"^{says}"):
            p.check(**arguments(p))


class TestLBFGS:
    def test_is_that_of_torch(self):
        ours, theirs = problem(seed=3), problem(seed=3)
        run = fit_lbfgs(ours, 12, every=5, history=7)
        optimizer = torch.optim.LBFGS(
            theirs.parameters, max_iter=12, max_eval=1000, history_size=7, tolerance_grad=0,
            tolerance_change=0, line_search_fn="strong_wolfe",
        )  # fmt: skip

        def closure():
            optimizer.zero_grad()
            loss = theirs.loss()
            loss.backward()
            return loss

        optimizer.step(closure)
        assert run.iterations == (0, 5, 10, 12)
        assert float(run.losses[-1]) == pytest.approx(float(theirs.loss().detach()), rel=1e-6)
        assert run.losses[0] > 10 * run.losses[-1]
        np.testing.assert_array_equal(run.record["loss"][0], run.losses.numpy())
        assert run.evaluations >= 12

    def test_nothing_is_promised_of_it(self):
        (certificate,) = fit_lbfgs(problem(), 2).certificates()
        assert certificate.verdict == Verdict.NOT_PROMISED
        assert "L-BFGS" in certificate.reason

    def test_a_loss_that_is_not_finite_stops_it(self):
        p = problem()
        with torch.no_grad():
            p.model.c[0, 3:6] = math.inf
        with pytest.raises(NonFiniteError, match="loss is .* at step 0"):
            fit_lbfgs(p, 5)

    @pytest.mark.parametrize("name", ["iterations", "every", "history"])
    def test_bad_input_is_named(self, name):
        with pytest.raises(ValueError, match=f"^{name} must"):
            fit_lbfgs(problem(), **({"iterations": 5} | {name: 0}))


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("says", "change"),
    [
        ("model must", {"model": lambda x: x}),
        ("model must have parameters", {"model": nn.Identity()}),
        ("pde must", {"pde": "poisson"}),
        ("interior must have shape", {"interior": points(4, 3)}),
        ("interior must have at least one", {"interior": points(0, 2)}),
        ("interior must be finite", {"interior": points(4, 2) / 0}),
        ("interior must hold floating", {"interior": torch.zeros(4, 2, dtype=torch.int64)}),
        ("boundary must have shape", {"boundary": torch.zeros(4)}),
        ("boundary must have at least one", {"boundary": points(0, 2)}),
        (r"g must have shape \(8,\)", {"g": torch.zeros(3)}),
        (r"g must have shape \(8,\)", {"g": lambda x: x}),
        ("g must be finite", {"g": torch.full((8,), math.nan)}),
        ("g must be a number", {"g": "zero"}),
        ("weights must be two", {"weights": 3.0}),
        (r"weights\[0\] must", {"weights": (0.0, 1.0)}),
        (r"weights\[1\] must", {"weights": (1.0, -1.0)}),
    ],
)
def test_arguments_that_are_not_allowed_are_named(says, change):
    usual = {
        "model": KAN2(2, 4, seed=0), "pde": POISSON, "interior": points(9, 2), "boundary": border(8),
    }  # fmt: skip
    with pytest.raises(ValueError, match=f"^{says}"):
        PIKAN(**(usual | change))


@pytest.mark.parametrize("R", [-1.0, math.nan])
def test_radius_that_is_not_allowed_is_named(R):
    with pytest.raises(ValueError, match="^R must"):
        problem().hessian_bound(R)
    assert problem().hessian_bound(math.inf) == math.inf
