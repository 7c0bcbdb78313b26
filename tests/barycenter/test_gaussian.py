"""The closed forms of one pair: numbers, independent minimisers, derivatives, singular inputs."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize

from surefoot.barycenter import reference, suot_dual_gap, suot_gaussian

A2 = np.array([[2, 0.5], [0.5, 1]])
B2 = np.array([[1, -0.3], [-0.3, 3]])


def spd(rng, d, low=0.1, high=3.0):
    Q = np.linalg.qr(rng.standard_normal((d, d)))[0]
    A = (Q * rng.uniform(low, high, d)) @ Q.T
    return (A + A.T) / 2


def problems(count, largest=6, seed=0):
    rng = np.random.default_rng(seed)
    for _ in range(count):
        d = int(rng.integers(1, largest + 1))
        yield spd(rng, d), spd(rng, d), float(10 ** rng.uniform(-2, 2))


def test_reference_numbers():
    r = suot_gaussian(A2, B2, 0.7)
    assert r.upsilon == pytest.approx(0.3620022483265834, abs=1e-10)
    sigma = [[1.1983225820613885, 0.03264550521707], [0.03264550521707, 1.9978646654867132]]
    np.testing.assert_allclose(r.sigma_x, sigma, atol=1e-10)
    S = [[1.1106285493419956, 0.08635333796678], [0.08635333796678, 0.8232173275165757]]
    np.testing.assert_allclose(r.map, S, atol=1e-10)
    assert suot_gaussian(A2, B2, 0.7, mass="free").value == pytest.approx(
        0.28264621557462, abs=1e-10
    )


def test_reference_numbers_in_one_dimension_and_of_a_singular_input():
    r = suot_gaussian([[2.0]], [[0.5]], 1.0)
    assert r.upsilon == pytest.approx(0.1813136444151321, abs=1e-10)
    assert r.sigma_x[0, 0] == pytest.approx(0.9519183588, abs=1e-10)
    r = suot_gaussian(np.diag([4.0, 0.0]), np.eye(2), 1.0)
    assert r.upsilon == pytest.approx(1.2277891102034735, abs=1e-10)
    np.testing.assert_allclose(r.sigma_x, np.diag([1.5517138322, 0]), atol=1e-10)


def test_closed_form_is_the_minimum():
    for A, B, tau in problems(50):
        r = suot_gaussian(A, B, tau)
        direct = reference.bures(r.sigma_x, B) + tau * reference.kl(r.sigma_x, A)
        assert r.upsilon == pytest.approx(direct, abs=1e-11 * max(1, tau))
        assert r.dual_gap <= 1e-10 * max(r.upsilon, 1e-3)
        np.testing.assert_allclose(r.sigma_x, reference.relaxed_input(A, B, tau), atol=1e-11)
        np.testing.assert_allclose(r.map, reference.optimal_map(A, B, tau), atol=1e-10)


@pytest.mark.acceptance
def test_closed_form_is_below_bfgs():
    for A, B, tau in problems(50, seed=1):
        assert suot_gaussian(A, B, tau).upsilon <= reference.minimum(A, B, tau) + 1e-9


def test_the_dual_gap_sees_a_wrong_map():
    for A, B, tau in problems(20, seed=2):
        right = suot_gaussian(A, B, tau).map
        assert suot_dual_gap(A, B, tau, right) < 1e-10
        assert suot_dual_gap(A, B, tau, 1.01 * right) > 1e-6
    assert suot_dual_gap(A2, B2, math.inf, 1.01 * suot_gaussian(A2, B2, math.inf).map) > 1e-5


@given(seed=st.integers(0, 10**6), d=st.integers(2, 6), tau=st.floats(1e-2, 1e2))
def test_rotated_singular_input_equals_its_reduction(seed, d, tau):
    rng = np.random.default_rng(seed)
    k = int(rng.integers(1, d))
    X = rng.standard_normal((d, k))
    A, B = X @ X.T, spd(rng, d)
    Q = np.linalg.svd(X)[0]
    P = Q[:, :k]
    # On range(A): transport of the marginal, plus what of B lies outside and can only be paid.
    reduced = suot_gaussian(P.T @ A @ P, P.T @ B @ P, tau).upsilon
    outside = np.trace(B) - np.trace(P.T @ B @ P)
    r = suot_gaussian(A, B, tau)
    assert r.upsilon == pytest.approx(reduced + outside, abs=1e-10)
    np.testing.assert_allclose(Q[:, k:].T @ r.sigma_x, 0, atol=1e-12)


def test_singular_b_has_values_but_no_map():
    A, B = spd(np.random.default_rng(0), 3), np.diag([1.0, 2.0, 0.0])
    r = suot_gaussian(A, B, 0.8)
    assert r.map is None
    near = suot_gaussian(A, B + 1e-12 * np.eye(3), 0.8)
    assert r.upsilon == pytest.approx(near.upsilon, abs=1e-5)
    np.testing.assert_allclose(r.sigma_x, near.sigma_x, atol=1e-5)
    assert r.upsilon == pytest.approx(
        reference.bures(r.sigma_x, B) + 0.8 * reference.kl(r.sigma_x, A), abs=1e-10
    )
    assert r.kl == pytest.approx(reference.kl(r.sigma_x, A), abs=1e-12)


@pytest.mark.parametrize("tau", [1e-6, 1e-3, 1.0, 1e3, 1e6, 1e8])
def test_extreme_tau(tau):
    rng = np.random.default_rng(3)
    A, B = spd(rng, 5), spd(rng, 5)
    r = suot_gaussian(A, B, tau)
    assert r.transport_cost + tau * r.kl == pytest.approx(r.upsilon, abs=1e-13)
    assert r.kl == pytest.approx(reference.kl(r.sigma_x, A), abs=2e-14)
    assert 0 <= r.upsilon <= suot_gaussian(A, B, math.inf).upsilon + 1e-13


def test_infinite_tau_is_the_bures_distance():
    A, B = spd(np.random.default_rng(4), 4), spd(np.random.default_rng(5), 4)
    r = suot_gaussian(A, B, math.inf)
    assert r.upsilon == pytest.approx(reference.bures(A, B), abs=1e-13)
    np.testing.assert_allclose(r.sigma_x, A, atol=1e-13)
    assert r.kl == 0
    assert r.dual_gap < 1e-12


def test_means_separate_and_agree_with_a_minimiser():
    rng = np.random.default_rng(6)
    A, B, a, b, tau = spd(rng, 3), spd(rng, 3), rng.standard_normal(3), rng.standard_normal(3), 0.9
    r = suot_gaussian(A, B, tau, mean_a=a, mean_b=b)
    inverse = np.linalg.inv(A)

    def price(m):
        return (m - b) @ (m - b) + tau / 2 * (m - a) @ inverse @ (m - a)

    best = minimize(price, a, tol=1e-12)
    np.testing.assert_allclose(r.mean_x, best.x, atol=1e-7)
    assert r.upsilon == pytest.approx(suot_gaussian(A, B, tau).upsilon + best.fun, abs=1e-10)
    m = r.mean_x
    kl = reference.kl(r.sigma_x, A) + (m - a) @ inverse @ (m - a) / 2
    assert r.kl == pytest.approx(kl, abs=1e-12)
    assert r.transport_cost == pytest.approx(
        reference.bures(r.sigma_x, B) + (m - b) @ (m - b), abs=1e-12
    )


def test_free_mass_is_the_minimum_over_masses():
    u, tau = suot_gaussian(A2, B2, 0.7).upsilon, 0.7
    r = suot_gaussian(A2, B2, tau, mass="free")

    def cost(m):
        return m * u + tau * (m * np.log(m) - m + 1)

    grid = np.linspace(0.2, 1, 80001)
    assert r.value == pytest.approx(cost(grid).min(), abs=1e-9)
    assert r.mass == pytest.approx(grid[cost(grid).argmin()], abs=1e-4)


def test_plan_is_a_coupling_with_the_right_cost():
    r = suot_gaussian(A2, B2, 0.7, return_plan=True)
    assert np.linalg.eigvalsh(r.plan).min() > -1e-14
    np.testing.assert_allclose(r.plan[:2, :2], r.sigma_x)
    np.testing.assert_allclose(r.plan[2:, 2:], B2)
    move = np.hstack([np.eye(2), -np.eye(2)])
    assert np.trace(move @ r.plan @ move.T) == pytest.approx(r.transport_cost, abs=1e-13)


def central(f, x, direction, h=1e-5):
    return (f(x + h * direction) - f(x - h * direction)) / (2 * h)


PAIRS = {
    "random": (A2, B2, 0.7),
    "equal": (np.eye(3), np.eye(3), 1.3),
    "repeated": (np.diag([2.0, 2.0, 1.0]), np.eye(3), 0.2),
    "large tau": (A2, B2, 300.0),
}


@pytest.mark.parametrize("name", PAIRS)
def test_derivatives_by_central_differences(name):
    A, B, tau = PAIRS[name]
    d = len(A)
    rng = np.random.default_rng(7)
    t = [torch.tensor(x, requires_grad=True) for x in (A, B, tau)]
    suot_gaussian(*t).value.backward()
    grads = [x.grad.numpy() for x in t]
    assert all(np.isfinite(g).all() for g in grads)
    for _ in range(3):
        E = rng.standard_normal((d, d))
        E = (E + E.T) / np.linalg.norm(E + E.T)
        in_a = central(lambda X: suot_gaussian(X, B, tau).value, A, E)
        in_b = central(lambda X: suot_gaussian(A, X, tau).value, B, E)
        assert np.sum(grads[0] * E) == pytest.approx(in_a, rel=1e-6, abs=1e-9)
        assert np.sum(grads[1] * E) == pytest.approx(in_b, rel=1e-6, abs=1e-9)
    in_tau = central(lambda x: suot_gaussian(A, B, x).value, tau, 1.0, h=1e-4 * tau)
    assert grads[2] == pytest.approx(in_tau, rel=1e-6, abs=1e-9)


def test_derivative_along_the_geodesic():
    rng = np.random.default_rng(8)
    A, B, D, tau = spd(rng, 4), spd(rng, 4), spd(rng, 4), 0.5
    T = reference.geometric_mean(np.linalg.inv(B), D)

    def at(t):
        move = (1 - t) * np.eye(4) + t * T
        return suot_gaussian(A, move @ B @ move, tau).value

    S = suot_gaussian(A, B, tau).map
    exact = 2 * np.trace((np.eye(4) - S) @ B @ (T - np.eye(4)))
    assert exact == pytest.approx((at(1e-5) - at(-1e-5)) / 2e-5, rel=1e-6)


@pytest.mark.parametrize("mass", ["fixed", "free"])
def test_gradcheck_with_means_and_broadcasting(mass):
    rng = np.random.default_rng(9)
    L = torch.tensor(np.linalg.cholesky([spd(rng, 2) for _ in range(3)]), requires_grad=True)
    M = torch.tensor(np.linalg.cholesky(spd(rng, 2)), requires_grad=True)
    tau = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    a, b = (torch.tensor(rng.standard_normal(s), requires_grad=True) for s in ((3, 2), (2,)))

    def value(L, M, tau, a, b):
        return suot_gaussian(L @ L.mT, M @ M.mT, tau, mean_a=a, mean_b=b, mass=mass).value

    assert torch.autograd.gradcheck(value, (L, M, tau, a, b))


def test_backward_refuses_what_has_no_derivative():
    singular = torch.diag(torch.tensor([1.0, 0.0], dtype=torch.float64))
    regular = torch.eye(2, dtype=torch.float64)
    A = singular.clone().requires_grad_()
    with pytest.raises(ValueError, match="derivative in A"):
        suot_gaussian(A, regular, 1.0).value.backward()
    B = singular.clone().requires_grad_()
    with pytest.raises(ValueError, match="derivative in B"):
        suot_gaussian(regular, B, 1.0).value.backward()
    # A singular A is no obstacle to the derivative in B.
    B = regular.clone().requires_grad_()
    suot_gaussian(singular, B, 1.0).value.backward()
    assert torch.isfinite(B.grad).all()


def test_broadcasting_equals_the_loop_and_keeps_the_kind():
    rng = np.random.default_rng(10)
    As, tau = np.stack([spd(rng, 3) for _ in range(5)]), 0.4
    B = spd(rng, 3)
    together = suot_gaussian(As, B, tau)
    assert together.sigma_x.shape == (5, 3, 3)
    assert isinstance(together.value, np.ndarray)
    for i, A in enumerate(As):
        one = suot_gaussian(A, B, tau)
        assert together.value[i] == pytest.approx(one.value, abs=1e-14)
        np.testing.assert_allclose(together.map[i], one.map, atol=1e-13)
    assert isinstance(suot_gaussian(torch.tensor(As), B, tau).value, torch.Tensor)
    taus = torch.tensor([0.1, 1.0, 10.0], dtype=torch.float64)
    swept = suot_gaussian(As[0], B, taus).value
    assert swept.shape == (3,)
    assert swept[2] == pytest.approx(suot_gaussian(As[0], B, 10.0).value, abs=1e-13)


@given(seed=st.integers(0, 10**6))
def test_value_is_nondecreasing_in_tau(seed):
    rng = np.random.default_rng(seed)
    A, B = spd(rng, 3), spd(rng, 3)
    taus = torch.logspace(-4, 5, 12, dtype=torch.float64)
    values = suot_gaussian(A, B, taus).value
    assert (values.diff() >= -1e-12).all()
    assert values[-1] <= suot_gaussian(A, B, math.inf).value + 1e-12


def test_integers_and_float32_are_computed_in_float64():
    r = suot_gaussian(np.array([[2, 0], [0, 1]]), np.eye(2, dtype=np.float32), 1)
    assert r.value.dtype == np.float64
    assert r.value == pytest.approx(suot_gaussian(np.diag([2.0, 1.0]), np.eye(2), 1.0).value, abs=0)


BAD = {
    "square": (np.ones((2, 3)), np.eye(2), 1.0, "shape"),
    "symmetric": (np.array([[1, 0.1], [0, 1]]), np.eye(2), 1.0, "symmetric"),
    "negative": (np.diag([1.0, -0.5]), np.eye(2), 1.0, "-0.5"),
    "negative B": (np.eye(2), np.diag([1.0, -0.5]), 1.0, "B.*-0.5"),
    "nan": (np.diag([1.0, np.nan]), np.eye(2), 1.0, "finite"),
    "sizes": (np.eye(3), np.eye(2), 1.0, "same size"),
    "complex": (np.eye(2) * 1j, np.eye(2), 1.0, "real"),
    "tau": (np.eye(2), np.eye(2), -1.0, "tau must be positive"),
    "zero tau": (np.eye(2), np.eye(2), 0.0, "tau must be positive"),
    "nan tau": (np.eye(2), np.eye(2), math.nan, "tau must be positive"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_inputs(name, unchecked):
    A, B, tau, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        suot_gaussian(A, B, tau)


def test_bad_inputs_name_their_index():
    As = np.stack([np.eye(2), np.eye(2), np.array([[1, 0.1], [0, 1]])])
    with pytest.raises(ValueError, match=r"A\[2\]"):
        suot_gaussian(As, np.eye(2), 1.0)
    with pytest.raises(ValueError, match="mass must be one of"):
        suot_gaussian(np.eye(2), np.eye(2), 1.0, mass="loose")
    with pytest.raises(ValueError, match="mean_a must have 2 entries"):
        suot_gaussian(np.eye(2), np.eye(2), 1.0, mean_a=np.zeros(3))


def test_the_authors_variant_of_the_value_is_wrong_unless_all_commute():
    """Pitfall: tr(Sigma_x # B) in place of tr(S B)."""
    X = suot_gaussian(A2, B2, 0.7).sigma_x
    cross = np.trace(reference.geometric_mean(X, B2))
    theirs = np.trace(X) + np.trace(B2) - 2 * cross + 0.7 * reference.kl(X, A2)
    assert theirs > suot_gaussian(A2, B2, 0.7).upsilon + 1e-4
