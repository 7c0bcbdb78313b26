"""Gradient descent is found at any step size, in any unit, in 16 bits; what stands in its way is named."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from tests.in_context.hidden import descent, near_identity, softmax_attention, steps

from surefoot.in_context import GaussianPrompts, probe

D, N, SIZE, LOOPS = 3, 12, 16, 3


def asked(fn, **more):
    return probe(fn, d=D, n=N, **{"size": SIZE, "max_loops": LOOPS} | more)


@pytest.mark.parametrize(("size", "loops"), [(3.0, 3), (20.0, 2), (-3.0, 2), (2e-4, 1)])
def test_equal_steps_of_any_size_are_gradient_descent(size, loops):
    report = asked(descent(steps(*[size] * loops, d=D)))
    assert (report.verdict, report.loops) == ("gd", loops)
    np.testing.assert_allclose(report.A, size * np.eye(D), atol=1e-6 * abs(size))


@pytest.mark.parametrize("size", [1e-4, 5.0])
def test_a_full_preconditioner_of_any_size_is_found(size):
    A = size * near_identity(D, size=1.0)
    report = asked(descent([A] * 2))
    assert (report.verdict, report.loops) == ("gd", 2)
    np.testing.assert_allclose(report.A, A, atol=1e-5 * size)


@pytest.mark.parametrize("unit", [1e-8, 1e8])
def test_features_in_any_unit_give_the_same_verdict(unit):
    p = GaussianPrompts(D, N, seed=0).sample(2 * SIZE)
    A = near_identity(D) / unit**2
    own = (unit * p.X, p.y, unit * p.xq)
    report = asked(descent([A] * 2), prompts=own, size=None)
    assert (report.verdict, report.loops) == ("gd", 2)
    np.testing.assert_allclose(report.A * unit**2, A * unit**2, atol=1e-5)


def test_tiny_steps_are_gradient_descent_whose_number_cannot_be_told():
    report = asked(descent(steps(*[1e-7] * 3, d=D)))
    assert (report.verdict, report.loops) == ("gd", 1)
    assert report.scale == pytest.approx(3e-7, rel=1e-5)
    assert "as many as 2, 3 steps fit as well" in str(report)


def test_more_steps_than_were_tried_are_asked_for():
    fn = descent(steps(*[0.1] * 6, d=D))
    short = asked(fn)
    assert short.verdict == "untied"
    assert "ask again with max_loops = 6" in str(short)
    longer = asked(fn, max_loops=6)
    assert (longer.verdict, longer.loops) == ("gd", 6)
    assert "ask again" not in str(longer)


def test_a_polynomial_without_real_steps_is_not_said_to_be_steps():
    def fn(X, y, xq):
        # 1 - x p(x) = (1 - x / 2)^2 + x^2: its roots are complex.
        S, g = X @ X.mT / N, (X @ y[..., None]) / N
        return ((g - 1.25 * S @ g)[..., 0] * xq).sum(1)

    report = asked(fn)
    assert (report.verdict, report.steps, report.fits) == ("untied", None, True)
    assert "a polynomial of degree 2 in the gradient, of no real steps" in str(report)


def rounded(fn, dtype):
    def answer(X, y, xq):
        return fn(*(t.to(dtype).double() for t in (X, y, xq))).to(dtype).float()

    return answer


@pytest.mark.parametrize("kind", ["bfloat16", "float16"])
def test_rounding_of_answers_in_16_bits_is_not_taken_for_another_function(kind):
    dtype = getattr(torch, kind)
    report = asked(rounded(descent(steps(0.5, 0.5, d=D)), dtype))
    assert (report.verdict, report.loops, report.rounded) == ("gd", 2, kind)
    assert report.linear == 2 * torch.finfo(dtype).eps
    assert f"answers are rounded to {kind}" in str(report)


def test_what_is_nothing_or_full_precision_is_not_called_rounded():
    assert asked(lambda X, y, xq: 0 * y[:, 0]).rounded is None
    assert asked(lambda X, y, xq: y.sign()[:, 0] * 2).rounded is None
    report = asked(descent(steps(0.5, d=D)))
    assert (report.rounded, report.linear) == (None, 1e-3)


def test_a_constant_is_told_from_a_curve():
    inner = descent(steps(0.5, 0.5, d=D))
    biased = asked(lambda X, y, xq: inner(X, y, xq) + 0.2)
    ridge = asked(Ridge(alpha=1.0))
    curve = asked(rounded(softmax_attention, torch.bfloat16))
    for report in (biased, ridge):
        assert report.verdict == "not linear in the query"
        assert report.lin_affine < 1e-12
        assert "linear but for a constant" in str(report)
    assert curve.lin_affine > 0.1
    assert "linear but for a constant" not in str(curve)
    assert asked(inner).lin_affine is None
    # And what the hint says to do gives the answer.
    less = asked(lambda X, y, xq: inner(X, y, xq) + 0.2 - (inner(X, y, 0 * xq) + 0.2))
    assert (less.verdict, less.loops) == ("gd", 2)
