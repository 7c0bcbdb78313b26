"""Whether T1 holds at a start: the certified case, each condition that fails, and what is no question."""

import math

import pytest
import torch
from tests.kan.problems import Hidden, certified, line, linear

from surefoot.kan import KAN2, certificate


def test_small_labels_are_certified_and_large_ones_are_not():
    model, X, y = certified()
    small, large = certificate(model, X, y), certificate(model, X, 100 * y)
    assert small.certified
    assert small.Lambda <= small.threshold
    assert not small.failing
    assert not large.certified
    assert ["wide enough" in f for f in large.failing] == [True]
    assert large.width_needed > 256 > small.width_needed
    assert 0 < small.step < 1 / small.lambda_max
    assert small.rate == pytest.approx(1 - small.step * small.lambda0 / 2)
    assert "certified" in str(small)
    assert "FAILS: wide enough" in str(large)
    assert "width needed about" in str(large)


def test_the_width_that_is_needed_would_do():
    """Lambda falls about like m^(-1/2) and lambda0 stays: twice that width is enough, half is not."""
    model, X, y = certified(m=32, scale=0.02)
    short = certificate(model, X, y)
    assert not short.certified
    for factor, enough in ((2, True), (0.5, False)):
        m = 2 * int(factor * short.width_needed / 2)
        assert certificate(*certified(m=m, scale=0.02)).certified is enough


def test_nothing_left_to_learn_is_certified():
    model, X, _ = certified()
    c = certificate(model, X, model(X).detach())
    assert (c.r0, c.R, c.threshold, c.certified) == (0.0, 0.0, math.inf, True)
    assert c.step == pytest.approx(1 / c.lambda_max)


def test_points_that_coincide_are_named():
    model, X, y = certified(n=6)
    X[4], X[5] = X[1], X[2]
    c = certificate(model, X, y)
    assert not c.certified
    assert abs(c.lambda0) <= 1e-12 * c.lambda_max
    assert (c.step, c.R) == (0.0, math.inf)
    text = str(c)
    assert "singular: points 1,4 coincide; points 2,5 coincide" in text
    assert "FAILS: positive definite K" in text


def test_a_negative_zero_is_a_zero():
    model, X, y = certified(n=5)
    X[0], X[1] = 0.0, -0.0
    assert "points 0,1 coincide" in str(certificate(model, X, y))


def test_more_rows_than_parameters_are_refused():
    X = line(20)
    with pytest.raises(
        ValueError, match="X must have at most as many rows as the model has parameters, 16"
    ):
        certificate(KAN2(1, 1, seed=0), X, X[:, 0])


def test_piecewise_linear_splines_are_not_smooth_enough():
    X = line(5)
    c = certificate(KAN2(1, 64, spline_order=1, symmetric=True, seed=0), X, 1e-9 * X[:, 0])
    assert not c.certified
    assert any("spline degree >= 2" in f and "measured 1" in f for f in c.failing)


def test_a_differential_equation_asks_for_a_higher_degree():
    problem = linear()
    assert certificate(problem).certified
    problem.pde_order = 2
    c = certificate(problem)
    assert any(
        "spline degree >= 4 for a differential equation of order 2, measured 3" in f
        for f in c.failing
    )


def test_of_another_model_nothing_is_assumed():
    model, X, y = certified()
    c = certificate(Hidden(model), X, y)
    assert not c.certified
    assert {a.name: a.holds for a in c.assumptions} == {
        "distinct inputs": True, "positive definite K": True, "Lipschitz Jacobian": None, "wide enough": None,
    }  # fmt: skip


def test_what_is_outside_the_grid_is_told():
    X = line(5, width=1.3)
    c = certificate(KAN2(1, 64, seed=0), X, X[:, 0])
    assert c.dead[0] == 0.4
    assert "40.0% of the inputs" in str(c)


def test_the_mean_is_the_sum_with_scaled_labels():
    """L / n: K / n, |r0| / sqrt(n), Lambda / sqrt(n) and the same R and verdict, n times the step."""
    model, X, y = certified(n=5)
    plain, mean = certificate(model, X, y), certificate(model, X, y, "mean")
    assert mean.R == pytest.approx(plain.R)
    assert mean.lambda0 == pytest.approx(plain.lambda0 / 5)
    assert mean.step == pytest.approx(5 * plain.step)
    assert mean.rate == pytest.approx(plain.rate)


@pytest.mark.parametrize(
    ("X", "y", "message"),
    [
        (line(5), torch.ones(4), "y must have as many numbers as the residual has rows, 5, got 4"),
        (line(5), torch.full((5,), math.nan), "y must be finite"),
        (line(5), None, None),
        (torch.full((5, 1), math.inf), torch.ones(5), "X must be finite"),
    ],
)
def test_bad_data(X, y, message):
    model = KAN2(1, 8, seed=0)
    if message is None:
        assert certificate(model, X, y).r0 == pytest.approx(float(model(X).detach().norm()))
        return
    with pytest.raises(ValueError, match=message):
        certificate(model, X, y)
