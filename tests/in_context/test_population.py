"""The exact loss and optimum: the spec's numbers, closed forms, sampled models, invariance."""

import math
import warnings
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from surefoot.in_context import (
    GaussianPrompts,
    LoopedTransformer,
    LoopsCapWarning,
    bias_excess,
    optimal_model,
    optimal_schedule,
    optimal_step,
    population_loss,
    safe_loops,
    wishart_moments,
)
from surefoot.in_context._polynomial import mean, positive_roots, residual
from surefoot.in_context.population import slope


def spd(d, seed):
    g = np.random.default_rng(seed)
    root = g.standard_normal((d, d))
    return root @ root.T + 0.3 * np.eye(d)


def inverse_of(S, b):
    values, vectors = np.linalg.eigh(S)
    root = (vectors / np.sqrt(values)) @ vectors.T
    return root @ (b * np.eye(len(S))) @ root


@pytest.mark.parametrize(
    ("d", "n", "loops", "step", "loss"),
    [
        (10, 20, 1, 20 / 31, 110 / 31), (10, 20, 2, 0.628077, 2.105277),
        (10, 50, 5, 0.776090, 0.062076), (10, 200, 8, 0.920626, 1.92724e-6),
        (9, 40, 10, 0.678071, 0.01004987), (10, 5, 3, 0.27724, 5.87078),
        (10, 20, 5, 0.57721, 0.86568), (5, 20, 3, 0.71559, 0.26834),
    ],
)  # fmt: skip
def test_the_best_tied_step(d, n, loops, step, loss):
    found = optimal_step(d, n, loops)
    assert found == pytest.approx(step, rel=1e-5)
    value = population_loss(d, n, loops, found)
    assert value.stderr == 0
    assert value.value == pytest.approx(loss, rel=1e-5)


@settings(max_examples=10, deadline=None)
@given(st.integers(1, 20), st.integers(1, 60))
def test_one_loop_has_a_closed_form(d, n):
    assert optimal_step(d, n, 1) == pytest.approx(n / (n + d + 1), rel=1e-15)
    assert float(population_loss(d, n, 1, optimal_step(d, n, 1))) == pytest.approx(
        d * (d + 1) / (n + d + 1), rel=1e-14
    )


@settings(max_examples=8, deadline=None)
@given(st.integers(1, 8), st.integers(1, 12), st.integers(1, 4), st.floats(0.05, 1.9))
def test_no_other_step_is_better(d, n, loops, b):
    best = float(population_loss(d, n, loops, optimal_step(d, n, loops)))
    assert best <= float(population_loss(d, n, loops, b)) * (1 + 1e-14)
    assert best >= max(d - n, 0)  # Bayes


def test_the_slope_is_that_of_the_loss():
    b, h = Fraction(3, 5), Fraction(1, 10**8)

    def exact(at):
        return mean(residual([at] * 6), wishart_moments(4, 9, 6))

    difference = (exact(b + h) - exact(b - h)) / (2 * h)
    assert float(slope(4, 9, 3, b)) == pytest.approx(float(difference), rel=1e-12)


@pytest.mark.parametrize(
    ("n", "loops", "tied", "untied"),
    [
        (20, 1, 3.548387, 3.548387), (20, 2, 2.105277, 1.684494), (20, 3, 1.458677, 0.912833),
        (20, 5, 0.865681, 0.326756), (50, 2, 0.611273, 0.407591), (50, 3, 0.256238, 0.103849),
        (50, 5, 0.062076, 0.008774),
    ],
)  # fmt: skip
def test_loops_against_layers(n, loops, tied, untied):
    found = optimal_schedule(10, n, loops)
    assert found.loss == pytest.approx(untied, rel=1e-4)
    assert float(population_loss(10, n, loops, optimal_step(10, n, loops))) == pytest.approx(
        tied, rel=1e-5
    )
    # The loss of these very steps, in any order, is the one that is told.
    assert float(population_loss(10, n, loops, found.steps)) == pytest.approx(found.loss, rel=1e-13)
    assert float(population_loss(10, n, loops, found.steps[::-1])) == pytest.approx(
        found.loss, rel=1e-13
    )


def test_a_schedule_of_three():
    found = optimal_schedule(10, 50, 3)
    assert found.loss == pytest.approx(0.103849, rel=1e-5)
    assert found.steps == pytest.approx((0.506, 0.783, 1.730), abs=1e-3)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(1, 10**6), min_size=1, max_size=8, unique=True))
def test_roots_are_found_to_the_last_bit(numbers):
    roots = sorted(Fraction(k, 1000) for k in numbers)
    found = positive_roots(residual([1 / r for r in roots]))
    assert [float(r) for r in found] == [float(r) for r in roots]


@pytest.mark.parametrize("tied", [True, False])
def test_a_sampled_model_has_the_exact_loss(tied):
    model = optimal_model(4, 10, 3, tied=tied)
    p = GaussianPrompts(4, 10, seed=3).sample(20_000)
    with torch.no_grad():
        error = (model(p.X, p.y, p.xq) - p.target).square()
    exact = float(population_loss(4, 10, 3, A=model.A))
    assert abs(float(error.mean()) - exact) < 4 * float(error.std()) / math.sqrt(20_000)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_covariance_does_not_matter(seed):
    S, b = spd(5, seed), 0.6
    plain = population_loss(5, 12, 3, b)
    A = inverse_of(S, b)
    assert float(population_loss(5, 12, 3, A=A, sigma=S)) == pytest.approx(float(plain), rel=1e-9)
    drawn = population_loss(5, 12, 3, A=A, sigma=S, method="mc", samples=20_000, seed=seed)
    assert 0 < drawn.stderr < 0.02 * float(plain)
    assert abs(float(drawn) - float(plain)) < 3 * drawn.stderr


def test_weights_of_another_law_are_another_task():
    """With w ~ N(0, I) and x ~ N(0, S) the loss is not the one that is computed."""
    S = np.diag([0.1, 1.0, 4.0])
    model = LoopedTransformer(3, 2, dtype=torch.float64).requires_grad_(False)
    model.A.copy_(torch.from_numpy(inverse_of(S, 0.6)))
    p = GaussianPrompts(3, 12, sigma=torch.from_numpy(S), seed=0).sample(20_000)
    exact = float(population_loss(3, 12, 2, A=model.A.detach(), sigma=S))

    def measured(w):
        y, target = (w[:, None] @ p.X)[:, 0], (w * p.xq).sum(1)
        return float((model(p.X, y, p.xq) - target).square().mean())

    assert measured(p.w) == pytest.approx(exact, rel=0.08)
    wrong = torch.randn(20_000, 3, generator=torch.Generator().manual_seed(0)).double()
    assert measured(wrong) > 1.3 * exact


def test_floating_point_would_lose_every_digit():
    """Why rational: the sum over moments at 2L = 24 in float64 against the exact value."""
    b, loops = optimal_step(10, 200, 12), 12
    exact = float(population_loss(10, 200, loops, b))
    floats = sum(
        math.comb(24, k) * (-b) ** k * float(m) for k, m in enumerate(wishart_moments(10, 200, 24))
    )
    assert abs(floats - exact) > exact


@pytest.mark.parametrize("kind", ["exact", "mc"])
def test_a_bias_costs_its_quadratic_form(kind):
    u = np.array([1.0, -0.5, 0.2])
    S = spd(3, 4)
    A = (
        inverse_of(S, 0.5)
        if kind == "exact"
        else np.random.default_rng(1).standard_normal((3, 3)) * 0.3
    )
    form = bias_excess(u, 3, 9, 2, A=A, sigma=S, method=kind, samples=40_000)
    model = LoopedTransformer(3, 2, train_u=True, dtype=torch.float64).requires_grad_(False)
    model.A.copy_(torch.from_numpy(A))
    p = GaussianPrompts(3, 9, sigma=torch.from_numpy(S), seed=2).sample(20_000)
    without = (model(p.X, p.y, p.xq) - p.target).square()
    model.u.copy_(torch.from_numpy(u))
    excess = (model(p.X, p.y, p.xq) - p.target).square() - without
    off = math.hypot(float(excess.std()) / math.sqrt(20_000), form.stderr)
    assert float(form) > 5 * off
    assert abs(float(excess.mean()) - float(form)) < 3 * off


def test_how_often_to_loop():
    assert safe_loops(10, 20, optimal_step(10, 20, 2)) == 5
    assert safe_loops(10, 50, optimal_step(10, 50, 2)) == 8
    assert safe_loops(10, 50, optimal_step(10, 50, 5)) == 9
    assert safe_loops(10, 20, 1.9) == 0
    with pytest.warns(LoopsCapWarning, match="still falls at 6 loops"):
        assert safe_loops(10, 200, optimal_step(10, 200, 5), max_loops=6) == 6


@pytest.mark.parametrize(
    ("n", "trained", "curve"),
    [
        (20, 2, {1: 3.553, 2: 2.105, 3: 1.467, 4: 1.137, 5: 0.996, 6: 1.062, 8: 3.23, 10: 31.7, 14: 18280}),
        (50, 2, {8: 0.0323, 14: 0.934}), (50, 5, {9: 0.0132}), (200, 5, {14: 4.25e-9}),
    ],
)  # fmt: skip
def test_the_loss_over_test_time_loops(n, trained, curve):
    b = optimal_step(10, n, trained)
    for loops, loss in curve.items():
        assert float(population_loss(10, n, loops, b)) == pytest.approx(loss, rel=3e-3)


def test_no_loop_is_the_zero_prediction():
    assert float(population_loss(7, 3, 0, 0.5)) == 7
    assert float(population_loss(7, 3, 0, 0.5, method="mc", samples=10)) == 7


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: population_loss(3, 0, 2, 0.5), "^n must be"),
        (lambda: population_loss(0, 5, 2, 0.5), "^d must be"),
        (lambda: population_loss(3, 5, -1, 0.5), "^loops must be"),
        (lambda: population_loss(3, 5, 2, math.nan), "^b must be"),
        (lambda: population_loss(3, 5, 2, [0.5, 0.2, 0.1]), "^b must be one number or one a loop"),
        (lambda: population_loss(3, 5, 2), "^give b or A"),
        (lambda: population_loss(3, 5, 2, 0.5, A=np.eye(3)), "^give b or A"),
        (lambda: population_loss(3, 5, 2, A=np.eye(2)), r"^A must have shape \(3, 3\)"),
        (lambda: population_loss(3, 5, 2, A=np.full((3, 3), np.inf)), "^A must be .*finite"),
        (lambda: population_loss(3, 5, 2, A=np.diag([0.1, 0.5, 0.9])), "method='mc' takes any A"),
        (lambda: population_loss(3, 5, 21, 0.5), "loops must be at most 20.*method='mc'"),
        (
            lambda: population_loss(3, 5, 2, 0.5, sigma=np.diag([1.0, 1.0, 0.0])),
            "^sigma must be positive",
        ),
        (
            lambda: population_loss(3, 5, 2, 0.5, sigma=np.triu(np.ones((3, 3)))),
            "^sigma must be symm",
        ),
        (lambda: population_loss(3, 5, 2, 0.5, method="guess"), "^method must be one of"),
        (lambda: population_loss(3, 5, 2, 0.5, method="mc", samples=1), "^samples must be"),
        (lambda: optimal_step(3, 5, 0), "^loops must be"),
        (lambda: optimal_step(3, 5, 21), "^loops must be at most 20.*mc"),
        (lambda: optimal_schedule(3, 5, 21), "^loops must be at most 20.*mc"),
        (lambda: optimal_schedule(3, 0, 2), "^n must be"),
        (lambda: safe_loops(3, 5, math.inf), "^b must be"),
        (lambda: safe_loops(3, 5, 0.5, max_loops=21), "^max_loops must be"),
        (lambda: bias_excess(np.ones(1), 3, 5, 2, 0.5), "^u must have 3"),
    ],
)
def test_bad_input_is_named(call, says, unchecked):
    with warnings.catch_warnings(), pytest.raises(ValueError, match=says):
        call()


def test_more_than_twenty_loops_by_sampling():
    assert float(population_loss(3, 30, 25, 0.8, method="mc", samples=2000)) < 1e-3
