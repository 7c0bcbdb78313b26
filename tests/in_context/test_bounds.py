"""Bounds in numbers, gradient dominance, the exact flow."""

import math

import numpy as np
import pytest
import torch

from surefoot import Verdict
from surefoot.in_context import (
    diverging_bound,
    dominance_constant,
    dominance_ratio,
    flow_time,
    flow_times,
    gradient_flow,
    largest_shift,
    minimiser_bound,
    optimal_step,
    population_loss,
    prompt_contraction,
    scalar_dominance_bound,
)


@pytest.mark.parametrize(
    ("sizes", "c"),
    [((10, 20, 2), 34.8), ((10, 10**6, 2), 9.0), ((10, 10**14, 2), 0.90), ((2, 10**8, 1), 0.45),
     ((10, 200, 2), 26.1)],
)  # fmt: skip
def test_the_minimiser_bound_says_when_it_is_vacuous(sizes, c):
    found = minimiser_bound(*sizes)
    assert float(found) == found.c == pytest.approx(c, rel=0.01)
    assert found.vacuous == (c >= 1)


def test_the_promised_distance_beside_the_exact_one():
    assert abs(optimal_step(10, 200, 2) - 1) == pytest.approx(0.0557, abs=5e-5)


@pytest.mark.parametrize(("loops", "expected"), [(2, 5.0596), (3, 7.756)])
def test_dominance_at_the_start_is_the_power_mean(loops, expected):
    for n in (3, 20):
        found = dominance_ratio(10, n, loops, b=0.0)
        assert found.value == pytest.approx(expected, rel=1e-4)
        assert found.value == pytest.approx(dominance_constant(10, loops), rel=1e-12)


def test_dominance_fails_near_the_minimum():
    assert dominance_ratio(10, 20, 2, b=0.539).value == pytest.approx(0.2765, rel=1e-3)
    assert dominance_ratio(10, 20, 2, b=0.616).value == pytest.approx(0.0086, rel=1e-2)
    assert population_loss(10, 20, 2, 0.616).value == pytest.approx(2.1084, rel=1e-4)


def test_sampled_dominance_is_the_exact_one():
    S = np.diag([1.0, 2.0, 3.0])
    A = 0.3 * np.linalg.inv(S)
    exact = dominance_ratio(3, 20, 2, A=A, sigma=S)
    drawn = dominance_ratio(3, 20, 2, A=A, sigma=S, method="mc", samples=20_000)
    assert abs(exact.value - drawn.value) < 4 * drawn.stderr < 0.05 * exact.value


def test_no_symmetric_matrix_is_less_dominated_for_many_examples():
    g = np.random.default_rng(0)
    for _ in range(20):
        root = g.standard_normal((4, 4))
        A = root + root.T
        left = np.linalg.matrix_power(np.eye(4) - A, 3)
        slope = 6 * np.linalg.matrix_power(np.eye(4) - A, 5)
        loss = (left**2).sum()
        assert (slope**2).sum() >= dominance_constant(4, 3) * loss ** (5 / 3) * (1 - 1e-12)


def test_the_bound_on_the_path_lies_below_the_ratio():
    best = optimal_step(6, 15, 3)
    least = population_loss(6, 15, 3, best).value
    for b in np.linspace(0, best, 12)[:-1]:
        loss = population_loss(6, 15, 3, b).value
        bound = scalar_dominance_bound(loss, least, 6, 3, best)
        assert 0 < bound <= dominance_ratio(6, 15, 3, b=b).value


@pytest.mark.parametrize("loops", [1, 2, 5])
def test_the_flow_time_solves_its_equation(loops):
    """dL/dt = -c L^{(2L-1)/L}, integrated step by step."""
    loss, c, t, dt = 3.0, 0.5, 0.0, 1e-4
    while loss > 0.7:
        loss -= dt * c * loss ** ((2 * loops - 1) / loops)
        t += dt
    assert flow_time(loss, loops, 3.0, c) == pytest.approx(t, rel=1e-3)


def test_flow_times_in_both_forms():
    assert flow_time(0.5, 2, 0.5) == 0 == flow_time(0.7, 2, 0.5)
    # The leading term is 16 L / (L - 1) xi^{-(L-1)/L}.
    assert flow_time(1e-12, 2, 10.0) == pytest.approx(32 * 1e6, rel=1e-5)
    assert flow_time(0.01, 3, 10.0, form="as_printed") == pytest.approx(100**0.4 * 24 ** (2 / 3))


def test_the_exact_flow_solves_its_equation():
    """db/dt = -L'(b)/d, by the midpoint rule on differences of the exact loss."""
    d, n, loops = 4, 9, 2

    def speed(b):
        h = 1e-5
        ahead, behind = (population_loss(d, n, loops, b + s).value for s in (h, -h))
        return -(ahead - behind) / (2 * h) / d

    b, dt = 0.0, 0.004
    for _ in range(50):
        k1 = speed(b)
        b += dt * speed(b + dt / 2 * k1)
    assert flow_times(d, n, loops, np.array([0.0, b]))[1] == pytest.approx(0.2, rel=1e-3)


def test_the_flow_keeps_what_follows_from_dominance():
    flow = gradient_flow(10, 20, 2, levels=12)
    heuristic, path, time = flow.certificates()
    assert (heuristic.verdict, path.verdict, time.verdict) == (Verdict.KEPT,) * 3
    assert heuristic.heuristic
    assert not path.heuristic
    # Down to the crossing the ratio holds; below it no time is promised.
    assert 2.1 < heuristic.details["crossing_loss"] < 2.5
    assert flow.losses[-1] == pytest.approx(2.105277, rel=1e-5)


def test_a_slow_flow_is_broken():
    flow = gradient_flow(10, 20, 2, levels=8)
    flow.record.extend(0, "flow_time", (100 * flow.times).tolist(), range(8))
    assert flow.certificates()[2].verdict is Verdict.BROKEN


def test_how_surely_prompts_converge():
    d, n, largest = 5, 15, 0.5
    bound = diverging_bound(d, n, largest)
    X = torch.randn(20_000, d, n, generator=torch.Generator().manual_seed(0)).double()
    found = float((torch.linalg.matrix_norm(X, 2) ** 2 / n * largest >= 2).double().mean())
    assert 0 < found < bound < 0.3
    assert diverging_bound(d, n, largest * 2) == 1.0
    edge = largest_shift(d, n, largest)
    assert diverging_bound(d, n, largest * edge * 1.001) == 1.0
    assert diverging_bound(d, n, largest * edge * 0.99) < 1.0


def test_the_contraction_of_a_prompt():
    X = torch.diag_embed(torch.tensor([[1.0, 2.0], [1.0, 4.0]])).double()
    A = torch.diag(torch.tensor([1.0, 0.5])).double()
    # XX'/2 has the eigenvalues (1/2, 2) and (1/2, 8); A halves the second.
    assert prompt_contraction(X, A).tolist() == pytest.approx([0.5, 3.0])
    assert prompt_contraction(X[:, :, :1], A).tolist() == pytest.approx([1.0, 1.0])


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: minimiser_bound(0, 5, 1), "^d must be"), (lambda: minimiser_bound(1, 0, 1), "^n must be"),
        (lambda: minimiser_bound(1, 5, 0), "^loops must be"), (lambda: flow_time(0, 2, 1), "^xi must be"),
        (lambda: flow_time(0.1, 2, math.inf), "^loss0 must"), (lambda: flow_time(0.1, 2, 1, c=0), "^c must"),
        (lambda: flow_time(0.1, 1, 1, form="as_printed"), "^loops must be at least 2"),
        (lambda: flow_time(0.1, 2, 1, c=0.1, form="as_printed"), "^c must be 1/16"),
        (lambda: flow_time(0.1, 2, 1, form="printed"), "^form must be one of"),
        (lambda: diverging_bound(3, 5, 0), "^largest must be"), (lambda: largest_shift(3, 5, -1), "^largest"),
        (lambda: dominance_ratio(3, 5, 0, b=0.1), "^loops must be"),
        (lambda: dominance_ratio(3, 5, 2, b=[0.1, 0.2]), "^b must be a number"),
        (lambda: dominance_ratio(3, 5, 2, A=np.zeros((2, 3, 3))), "^A must be an array of 2"),
        (lambda: gradient_flow(3, 5, 2, levels=1), "^levels must be"),
        (lambda: flow_times(3, 5, 2, np.array([0.0, 1.9])), "^b must ascend and stay below"),
        (lambda: prompt_contraction(torch.zeros(2, 3), torch.eye(3)), "^X must be a tensor of 3"),
        (lambda: prompt_contraction(torch.zeros(2, 3, 4), -torch.eye(3)), "^A must be positive definite"),
        (lambda: scalar_dominance_bound(1.0, 2.0, 3, 2, 0.5), "^least must be"),
    ],
)  # fmt: skip
def test_bad_input_is_named(call, says, unchecked):
    with pytest.raises(ValueError, match=says):
        call()
