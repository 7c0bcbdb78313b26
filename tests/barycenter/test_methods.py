"""Every method reaches the same optimum; what ought to coincide coincides."""

import math
import warnings

import numpy as np
import pytest
import torch
from sklearn.exceptions import ConvergenceWarning

from surefoot.barycenter import suot_barycenter
from surefoot.barycenter._solver.newton import curvature, hessian_product, solve_congruent
from surefoot.barycenter._solver.problem import Problem
from surefoot.barycenter._spectral.closed_forms import Inputs
from surefoot.barycenter.baselines import euclidean_gradient, exponential, lyapunov

COVS = np.array([[[2, 0.5], [0.5, 1]], [[1, -0.3], [-0.3, 3]], [[0.5, 0], [0, 0.25]]])
WEIGHTS = [0.5, 0.3, 0.2]
EXPECTED = {
    0.1: [[1.0304355847, 0.0847423961], [0.0847423961, 0.7218265381]],
    1.0: [[1.1230601902, 0.1223202064], [0.1223202064, 0.8985111461]],
    10.0: [[1.2581933098, 0.1616758433], [0.1616758433, 1.1442097181]],
}
DESCENTS = ["bb", "eggd", "hybrid", "newton", "eggd_adaptive", "autograd", "autograd_momentum"]


def spds(seed, n, d, low=0.1, high=1.0):
    rng = np.random.default_rng(seed)
    Q = np.linalg.qr(rng.standard_normal((n, d, d)))[0]
    A = (Q * rng.uniform(low, high, (n, d))[:, None]) @ Q.swapaxes(-1, -2)
    return (A + A.swapaxes(-1, -2)) / 2


def problem(covs, tau, weights=None):
    n = len(covs)
    lam = (
        torch.full((1, n), 1 / n, dtype=torch.float64)
        if weights is None
        else torch.tensor([weights])
    )
    t = torch.tensor([[tau]], dtype=torch.float64)
    inputs = Inputs.of(torch.tensor(covs)[None], t)
    return Problem(inputs, lam.double(), False, None, None)


@pytest.mark.parametrize("method", DESCENTS)
@pytest.mark.parametrize("tau", EXPECTED)
def test_reference_numbers_by_every_method(method, tau):
    # Momentum .55 takes steps of 1/(1 - .55); the unit step would be 2.2 of them.
    step = 0.45 if method == "autograd_momentum" else 1.0
    r = suot_barycenter(COVS, weights=WEIGHTS, tau=tau, tol=1e-11, method=method, step=step)
    assert r.converged
    np.testing.assert_allclose(r.cov, EXPECTED[tau], atol=1e-7)


@pytest.mark.acceptance
@pytest.mark.parametrize("method", ["autograd_cyclic", "autograd_momentum_cyclic"])
def test_cyclic_variants_come_near_with_a_small_step_and_stay_there(method):
    with pytest.warns(ConvergenceWarning):
        r = suot_barycenter(COVS, tau=1.0, method=method, step=0.02, max_iter=600)
    best = suot_barycenter(COVS, tau=1.0)
    assert r.value < best.value + 1e-3
    assert r.grad_norm > 1e-4


def iterates(covs, tau, count, **options):
    found = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        for k in range(count):
            options |= {"max_iter": k, "tol": 1e-14, "record": False}
            found.append(suot_barycenter(covs, tau=tau, **options).cov)
    return np.array(found)


@pytest.mark.parametrize("tau", [0.1, 1.0, 10.0])
def test_hybrid_with_one_inner_step_is_eggd(tau, measured):
    covs = spds(0, 6, 4)
    eggd = iterates(covs, tau, 8, method="eggd")
    hybrid = iterates(covs, tau, 8, method="hybrid", inner_iter=1)
    np.testing.assert_allclose(hybrid, eggd, atol=1e-10)
    measured(f"8.6 hybrid(1) = eggd(1), tau={tau}", "1e-10", f"{abs(hybrid - eggd).max():.1e}")
    damped = iterates(covs, tau, 4, method="eggd", step=0.4)
    np.testing.assert_allclose(
        iterates(covs, tau, 4, method="hybrid", inner_iter=1, step=0.4), damped, atol=1e-10
    )


def test_a_full_inner_solve_saves_no_outer_steps():
    covs = spds(1, 8, 5)
    outer = [suot_barycenter(covs, tau=1.0, method="hybrid", inner_iter=k).n_iter for k in (1, 100)]
    assert outer[1] <= outer[0] + 1
    assert outer[1] >= outer[0] / 2


@pytest.mark.parametrize("tau", [0.1, 1.0, math.inf])
def test_autograd_is_eggd(tau):
    covs = spds(2, 5, 4)
    np.testing.assert_allclose(
        iterates(covs, tau, 6, method="autograd"), iterates(covs, tau, 6, method="eggd"), atol=1e-12
    )


def test_the_autograd_gradient_is_the_closed_form():
    p = problem(spds(3, 5, 4), 0.7)
    B = torch.tensor(spds(4, 1, 4))
    gradient = euclidean_gradient(p, B, p.weights)
    torch.testing.assert_close(gradient, p.at(B).G / 2, atol=1e-14, rtol=0)


def test_exponential_is_the_congruence_and_lyapunov_solves_its_equation():
    B, X = torch.tensor(spds(5, 1, 4)), torch.tensor(spds(6, 1, 4)) - 0.5 * torch.eye(4)
    V = X @ B + B @ X
    torch.testing.assert_close(lyapunov(B, V), X)
    eye = torch.eye(4, dtype=torch.float64)
    torch.testing.assert_close(exponential(B, V), (eye + X) @ B @ (eye + X))


@pytest.mark.parametrize("tau", [0.3, math.inf])
def test_hessian_is_the_derivative_of_the_gradient(tau):
    p = problem(spds(7, 4, 3), tau)
    B = torch.tensor(spds(8, 1, 3))
    E = torch.tensor(spds(9, 1, 3)) - 0.5 * torch.eye(3)
    coupling = p.inputs.couple(B[:, None])
    exact = hessian_product(coupling, curvature(coupling), p.weights, E)
    h = 1e-6
    central = (p.at(B + h * E).G - p.at(B - h * E).G) / (2 * h)
    torch.testing.assert_close(exact, central, atol=1e-8, rtol=1e-7)
    torch.testing.assert_close(
        solve_congruent(coupling, p.weights, B, exact, 1e-13), E, atol=1e-9, rtol=0
    )


def test_hessian_survives_repeated_eigenvalues_and_singular_inputs():
    covs = np.stack([np.eye(3), np.diag([1.0, 1.0, 0.0])])
    p = problem(covs, 0.5)
    B = torch.eye(3, dtype=torch.float64)[None]
    coupling = p.inputs.couple(B[:, None])
    E = torch.tensor(spds(10, 1, 3))
    assert torch.isfinite(hessian_product(coupling, curvature(coupling), p.weights, E)).all()


@pytest.mark.parametrize("tau", [0.01, 0.1, 1.0, 100.0])
def test_newton_needs_few_iterations(tau):
    r = suot_barycenter(spds(11, 20, 10), tau=tau, method="newton")
    assert r.converged
    assert r.n_iter <= 8


def test_newton_ends_where_rounding_does():
    with pytest.warns(ConvergenceWarning, match="no step of newton leads further down"):
        r = suot_barycenter(spds(14, 6, 4), tau=100.0, method="newton", tol=1e-18)
    assert r.n_iter < 20
    assert r.grad_norm < 1e-10


def test_newton_refuses_free_mass_and_solves_batches():
    with pytest.raises(ValueError, match="not convex"):
        suot_barycenter(COVS, mass="free", method="newton")
    covs = spds(12, 12, 3).reshape(3, 4, 3, 3)
    r = suot_barycenter(covs, tau=0.5, method="newton")
    np.testing.assert_allclose(r.cov, suot_barycenter(covs, tau=0.5).cov, atol=1e-7)
    assert r.n_iter.shape == (3,)


def test_the_adaptive_baseline_rejects_and_shrinks():
    r = suot_barycenter(COVS, tau=10.0, method="eggd_adaptive", step=2.6, init="identity")
    steps = r.history["step"].dropna()
    assert (steps == 0).any()
    assert steps.max() <= 2.6
    assert r.converged
    assert (r.history["F"].diff().dropna() <= 1e-15).all()


@pytest.mark.parametrize("tau", [1e-3, 1e-2, 0.1, 1.0, 100.0])
@pytest.mark.parametrize("n_d", [(20, 10), (100, 22), (30, 50)])
def test_bb_needs_few_iterations(tau, n_d, measured):
    n, d = n_d
    r = suot_barycenter(spds(13, n, d, 0.01, 1), tau=tau, record=False)
    measured(f"8.8 bb iterations, tau={tau:g}, n={n}, d={d}", "<= 25", r.n_iter)
    assert r.converged
    assert r.n_iter <= 25
