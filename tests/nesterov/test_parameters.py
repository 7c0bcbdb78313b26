"""Constants at the ends of their ranges, and the margin of stability."""

from math import sqrt

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from surefoot.nesterov import AGNES, agnes_parameters, nag_parameters
from surefoot.nesterov.bounds import agnes_floor, nag_floor
from surefoot.nesterov.oracle import exact_quadratic_expectation, moment_decay
from surefoot.nesterov.parameters import AgnesParams

positive = st.floats(1e-8, 1e8)


@given(L=positive, ratio=st.floats(1e-12, 1.0), sm=st.floats(0.0, 100.0), part=st.floats(1e-6, 1))
@example(L=1.0, ratio=1.0, sm=1e-200, part=1.0)
@example(L=100.27, ratio=1.0, sm=3.523, part=1.0)
def test_constants_are_admissible_hyperparameters_everywhere(L, ratio, sm, part):
    """Up to mu = L, where rounding alone could make alpha negative or divide by 0."""
    mu = min(L, ratio * L)
    eta = part * agnes_parameters(mu, L, sm).eta
    p = agnes_parameters(mu, L, sm, eta)
    assert 0 <= p.alpha <= p.eta
    assert 0 <= p.rho < 1
    assert 0 < p.s <= 1
    assert p.beta * p.gamma == pytest.approx(p.alpha, rel=1e-12, abs=1e-300)
    AGNES([{"params": [], "lr": p.alpha, "correction": p.eta, "momentum": p.rho}])


@given(L=positive, ratio=st.floats(1e-6, 0.9), sm=st.floats(0.01, 10.0), part=st.floats(0.01, 1.0))
def test_any_smaller_step_keeps_the_identities_of_the_derivation(L, ratio, sm, part):
    """gamma beta = alpha, (1-s) beta = gamma - sqrt(mu) eta, gamma^2 (1+sm2) = eta, rho (1+s) = 1-s."""
    mu = ratio * L
    p = agnes_parameters(mu, L, sm, part / (L * (1 + sm**2)))
    assert p.gamma**2 * (1 + sm**2) == pytest.approx(p.eta, rel=1e-12)
    assert (1 - p.s) * p.beta == pytest.approx(p.gamma - sqrt(mu) * p.eta, rel=1e-9)
    assert p.s == pytest.approx(sqrt(mu) * p.gamma, rel=1e-12)


@given(eta=st.floats(1e-3, 10.0), share=st.floats(0.0, 1.0), rho=st.floats(0.01, 0.99))
def test_the_stability_margin_is_where_a_mode_starts_to_diverge(eta, share, rho):
    p = AgnesParams(eta, share * eta, rho, 0.1, 1.0, 1.0)
    edge = p.largest_stable_curvature
    assert moment_decay([edge * (1 - 1e-3)], p, 0.0) > 0
    assert moment_decay([edge * (1 + 1e-3)], p, 0.0) < 0


def test_stability_margin_of_nag_is_four_thirds():
    p = nag_parameters(1e-9, 1.0)
    assert p.largest_stable_curvature == pytest.approx(4 / 3, rel=1e-4)
    assert p.largest_stable_curvature * p.eta == pytest.approx((2 + 2 * p.rho) / (1 + 2 * p.rho))
    for lam, stays in ((1.32, True), (1.35, False)):
        values = exact_quadratic_expectation([lam], [1.0], p, 0.0, 0.0, 2000)
        assert bool(values[-1] < values[0]) is stays


def test_floor_of_nag_is_that_of_agnes_without_multiplicative_noise():
    for eta in (0.02, 0.1):
        p = nag_parameters(0.3, 10.0, eta=eta)
        assert nag_floor(0.3, eta, 1.7, 10.0) == pytest.approx(agnes_floor(p, 10.0, 1.7), rel=1e-13)
    assert nag_floor(0.3, 0.1, 1.7) == nag_floor(0.3, 0.1, 1.7, 10.0)
