"""Path measures on functions whose constants are known, and against the ledger's own terms."""

from math import sqrt

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from surefoot.nesterov._ledger.lyapunov import State, terms_of
from surefoot.nesterov._probe.path_measures import (
    aiming_constant,
    certified_aiming,
    directional_nonconvexity,
    directional_smoothness,
    growth_constant,
)
from surefoot.nesterov.parameters import agnes_parameters

curvatures = st.lists(st.floats(-5, 5), min_size=2, max_size=5)


@given(lams=curvatures, seed=st.integers(0, 1000))
@settings(max_examples=60, deadline=None)
def test_quadratic(lams, seed):
    """f = y^T H y / 2: every measure is a Rayleigh quotient of H."""
    rng = np.random.default_rng(seed)
    H = np.array(lams)
    y, v = rng.standard_normal((2, len(H)))
    eta, alpha = 0.1, 0.3

    def f(t):
        return 0.5 * t @ (H * t)

    g = H * y
    x, x_next = y - alpha * v, y - eta * g
    eps = directional_nonconvexity(f(y), f(x), g @ v, v @ v, alpha)
    assert eps == pytest.approx(-(v @ (H * v)) / (v @ v), rel=1e-8, abs=1e-10)
    aiming = aiming_constant(f(y), g @ y, y @ y)
    assert aiming == pytest.approx(y @ (H * y) / (y @ y), rel=1e-9, abs=1e-10)
    if g @ g > 1e-4:
        L = directional_smoothness(f(y), f(x_next), g @ g, eta)
        assert pytest.approx(g @ (H * g) / (g @ g), rel=1e-7, abs=1e-8) == L


def test_growth_of_a_parabola_is_its_curvature():
    assert growth_constant(0.5 * 3 * 2.0**2, (3 * 2.0) ** 2) == pytest.approx(3)


@given(
    spread=st.floats(0.05, 1), distance=st.floats(0.01, 10), angle=st.floats(-1.5, 1.5)
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_growth_is_never_below_aiming(spread, distance, angle):
    """Aiming implies PL with the same mu: checked on an anisotropic quadratic."""
    y = distance * np.array([np.cos(angle), np.sin(angle)])
    H = np.array([1.0, spread])
    g, gap = H * y, 0.5 * y @ (H * y)
    assert growth_constant(gap, g @ g) >= aiming_constant(gap, g @ y, y @ y) * (1 - 1e-12)


def test_the_ledger_means_the_same():
    g = torch.Generator().manual_seed(0)
    y, v, p = torch.randn(3, 6, dtype=torch.float64, generator=g)

    def f(t):
        return float((torch.cos(t) + 0.3 * t**2).sum()) + 6

    grad = -torch.sin(y) + 0.6 * y
    rule = agnes_parameters(0.1, 2.0)
    x, x_next = y - rule.alpha * v, y - rule.eta * grad
    v_next = rule.rho * (v - grad)
    now = State(y, v, grad, p, f(x), f(y), f(p))
    terms = terms_of(now, f(x_next), v_next, x_next + rule.alpha * v_next, p, rule, 0.1, 0.0)
    d = y - p
    assert terms["mu_aim"] == pytest.approx(aiming_constant(f(y), float(grad @ d), float(d @ d)))
    assert terms["L_needed"] == pytest.approx(
        directional_smoothness(f(y), f(x_next), float(grad @ grad), rule.eta)
    )
    assert terms["eps"] == pytest.approx(
        directional_nonconvexity(f(y), f(x), float(grad @ v), float(v @ v), rule.alpha)
    )
    # The same sign conventions as the ledger's hypotheses.
    assert (terms["D"] > 0) == (terms["L_needed"] * rule.eta > 1)
    paid = (1 - rule.s) * terms["C"] + terms["K"] <= 0
    assert paid == (terms["eps"] <= sqrt(0.1 / rule.eta))


def test_arrays_and_vanishing_denominators():
    found = aiming_constant(np.array([1.0, 0.0]), np.array([2.0, 0.0]), np.array([2.0, 0.0]))
    np.testing.assert_array_equal(found, [1.0, np.nan])
    assert np.isnan(growth_constant(0.0, 0.0))
    assert np.isnan(directional_smoothness(1.0, 1.0, 0.0, 0.1))
    assert np.isnan(directional_nonconvexity(1.0, 1.0, 0.0, 0.0, 0.1))


def test_certified_aiming_is_the_minimum_of_the_tail():
    mu = np.array([0.1, 5.0, np.nan, 2.0, 3.0, np.nan])
    expected = [np.nanmin(mu[n:]) for n in range(5)]
    np.testing.assert_array_equal(certified_aiming(mu)[:5], expected)
    assert np.isnan(certified_aiming(mu)[5])


def test_bad_input():
    with pytest.raises(ValueError, match="eta must be positive and finite, got 0"):
        directional_smoothness(1.0, 1.0, 1.0, 0.0)
    with pytest.raises(ValueError, match="alpha must be positive and finite, got -1"):
        directional_nonconvexity(1.0, 1.0, 1.0, 1.0, -1.0)
