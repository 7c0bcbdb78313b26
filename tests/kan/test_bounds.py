"""The numbers of T1 and T3: against exact expectations, random directions, and their own definitions."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.kan.problems import Linear, certified, line

from surefoot.kan import KAN2, bounds, certificate, paper_width
from surefoot.kan.problem import Regression

positive = st.floats(1e-6, 1e6)


@given(positive, positive)
def test_radius_and_threshold_leave_half_of_the_smallest_eigenvalue(r0, lambda0):
    """At Lambda = threshold, sqrt(lambda_min) falls by Lambda R at most, which is to lambda0 / 2."""
    R, most = bounds.radius(r0, lambda0), bounds.threshold(r0, lambda0)
    assert (math.sqrt(lambda0) - most * R) ** 2 == pytest.approx(lambda0 / 2, rel=1e-12)


def test_published_constant():
    assert bounds.threshold(1.0, 1.0) == pytest.approx(0.10355, rel=1e-4)


def test_nothing_to_do_and_nothing_known():
    assert bounds.radius(0.0, 1.0) == 0.0
    assert bounds.threshold(0.0, 1.0) == math.inf
    assert bounds.radius(1.0, 0.0) == math.inf
    assert bounds.threshold(1.0, 0.0) == 0.0


def test_one_parameter_goes_exactly_as_far_as_its_residual():
    """f = theta: gradient descent moves |r0| in all, 2 sqrt2 times less than R."""
    assert bounds.radius(3.0, 1.0) == pytest.approx(2 * math.sqrt(2) * 3.0)


@pytest.mark.parametrize(("order", "d"), [(2, 1), (3, 2), (5, 3)])
def test_lambda_bounds_every_change_of_the_jacobian(order, d):
    g = torch.Generator().manual_seed(order)
    X = 2 * torch.rand(6, d, generator=g, dtype=torch.float64) - 1
    model = KAN2(d, 12, spline_order=order, seed=0)
    problem = Regression(model, X)
    R, start = 0.7, [p.detach().clone() for p in model.parameters()]
    Lambda = problem.hessian_bound(R)

    def at(share):
        """J at a random point of the sphere of that share of R."""
        step = [torch.randn(p.shape, generator=g, dtype=torch.float64) for p in start]
        size = math.sqrt(sum(float((s**2).sum()) for s in step))
        with torch.no_grad():
            for p, p0, s in zip(model.parameters(), start, step, strict=True):
                p.copy_(p0 + share * R * s / size)
        theta = torch.cat([p.detach().reshape(-1) for p in model.parameters()])
        return problem.jacobian(), theta

    worst = 0.0
    for _ in range(15):
        (J, a), (J2, b) = at(float(torch.rand((), generator=g))), at(1.0)
        worst = max(worst, float(torch.linalg.matrix_norm(J - J2, 2) / (a - b).norm()))
    assert 0 < worst <= Lambda


def test_lambda_scales_with_width_and_normalisation():
    X = line(5)
    bound = {}
    for m in (64, 4096):
        model = KAN2(1, m, seed=0)
        with torch.no_grad():
            model.c.copy_(model.c / model.c.norm(dim=1, keepdim=True))
        bound[m] = Regression(model, X).hessian_bound(0.0)
    assert bound[64] / bound[4096] == pytest.approx(8.0, rel=1e-9)
    mean = Regression(model, X, normalisation="mean").hessian_bound(0.0)
    assert mean == pytest.approx(bound[4096] / math.sqrt(5))


@given(positive, st.floats(0, 1e3), positive)
def test_stochastic_radius_is_a_root(lambda0, slope, level):
    rho = bounds.stochastic_radius(lambda0, lambda R: level + slope * R)
    assert rho * (level + slope * rho) == pytest.approx(bounds.SHARE * math.sqrt(lambda0), rel=1e-9)


def test_stochastic_radius_at_the_ends():
    assert bounds.stochastic_radius(0.0, lambda R: 1.0) == 0.0
    assert bounds.stochastic_radius(1.0, lambda R: 0.0) == math.inf


@pytest.mark.parametrize("batch", [1, 2])
def test_second_moment_of_the_gradient(batch):
    """E |g|^2 over all draws is at most |grad L|^2 + (n/B) max_i |J_i|^2 2L, which T3 stands on."""
    model, X, y = certified(m=8, n=4, scale=1.0)
    problem = Regression(model, X, y)
    J, r = problem.jacobian(), problem.residual().detach()
    n, full = len(r), J.T @ r
    moments, mean = [], torch.zeros_like(full)
    for rows in itertools.product(range(n), repeat=batch):
        g = sum((n / batch) * r[i] * J[i] for i in rows)
        mean += g / n**batch
        moments.append(float(g @ g))
    assert torch.allclose(mean, full, atol=1e-12)
    largest = float((J**2).sum(1).max())
    assert np.mean(moments) <= float(full @ full) + n / batch * largest * float(r @ r)


def test_the_stochastic_rate_of_a_linear_problem_holds_exactly():
    """Lambda = 0: the ball is everything, p is 0, and E L_t is computed over all draws."""
    g = torch.Generator().manual_seed(0)
    A = torch.randn(3, 5, generator=g, dtype=torch.float64)
    b = torch.ones(3, dtype=torch.float64)
    K = A @ A.T
    rate = certificate(Linear(A, b)).stochastic(1)
    assert rate.rho == math.inf
    assert rate.p == 0.0
    assert 0 < rate.step <= 1 / float(torch.linalg.eigvalsh(K)[-1])
    M = torch.outer(b, b)
    for t in range(200):
        assert float(M.trace()) <= rate.factor(rate.step) ** t * 3.0 * (1 + 1e-12)
        # The mean over the n draws of (I - eta K n e_i e_i') M (.)'.
        draws = []
        for i in range(3):
            step = torch.eye(3, dtype=torch.float64)
            step[:, i] -= rate.step * 3 * K[:, i]
            draws.append(step @ M @ step.T)
        M = torch.stack(draws).mean(0)


def test_constants_of_a_small_start_by_hand():
    rate = bounds.stochastic_rate(4.0, 9.0, 5.0, 0.5, 6, 2, 0.1, 3.0)
    moved = (1 - 2**-0.5) * 2
    beta, row = 3 + moved, (math.sqrt(5) + moved) ** 2
    curvature = beta**2 + 3 * (0.5 + beta * 0.1)
    assert rate.curvature == pytest.approx(curvature)
    assert rate.step == pytest.approx(min(1 / curvature, 2 * 2 / (2 * curvature * 6 * row)))
    assert rate.p == pytest.approx(4 * 0.5 * math.sqrt(beta**2 + 6 * row / 2) / (2 * 0.1))


def test_paper_width_is_an_order_of_magnitude():
    both, first = paper_width(10, 8, 2, 0.5), paper_width(10, 8, 2, 0.5, "first", delta=0.1)
    assert float(both) == 8**9 * 1000 / 0.5**4
    assert float(first) == pytest.approx(4 * 8**6 * 100 / 0.25 * math.log(100))
    assert both.label == "order of magnitude"
    assert "order of magnitude" in str(first)
    # n alone where the other term is smaller.
    assert float(paper_width(10**6, 1, 1, 1e9, "first")) == 1e6


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n": 0}, "n must be a whole number of at least 1"),
        ({"lambda0": 0.0}, "lambda0 must be positive"),
        ({"which": "second"}, "which must be one of 'both', 'first'"),
        ({"delta": 1.0}, "delta must be strictly between 0 and 1"),
    ],
)
def test_paper_width_refuses(change, message):
    with pytest.raises(ValueError, match=message):
        paper_width(**{"n": 5, "g": 8, "d": 1, "lambda0": 1.0, **change})
