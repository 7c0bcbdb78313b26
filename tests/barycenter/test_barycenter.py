"""The barycenter: numbers, limits, peers, equivariance, edge cases, bad input."""

import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from sklearn.exceptions import ConvergenceWarning

from surefoot.barycenter import bures_barycenter, reference, suot_barycenter, suot_gaussian

COVS = np.array([[[2, 0.5], [0.5, 1]], [[1, -0.3], [-0.3, 3]], [[0.5, 0], [0, 0.25]]])
WEIGHTS = [0.5, 0.3, 0.2]
EXPECTED = {
    0.1: ([[1.0304355847, 0.0847423961], [0.0847423961, 0.7218265381]], 0.0246877343),
    1.0: ([[1.1230601902, 0.1223202064], [0.1223202064, 0.8985111461]], 0.1314293360),
    10.0: ([[1.2581933098, 0.1616758433], [0.1616758433, 1.1442097181]], 0.2705728462),
}


def spds(rng, n, d, low=0.1, high=1.0):
    Q = np.linalg.qr(rng.standard_normal((n, d, d)))[0]
    A = (Q * rng.uniform(low, high, (n, d))[:, None]) @ Q.swapaxes(-1, -2)
    return (A + A.swapaxes(-1, -2)) / 2


@pytest.mark.parametrize("method", ["bb", "eggd"])
@pytest.mark.parametrize("tau", EXPECTED)
def test_reference_numbers(tau, method):
    r = suot_barycenter(COVS, weights=WEIGHTS, tau=tau, tol=1e-11, method=method)
    cov, mean_upsilon = EXPECTED[tau]
    np.testing.assert_allclose(r.cov, cov, atol=1e-7)
    assert 2 * r.value == pytest.approx(mean_upsilon, abs=1e-9)
    assert r.converged
    assert r.optimality_gap < 1e-14


def test_the_optimum_agrees_with_a_general_minimiser():
    """Cholesky factors, the textbook value, BFGS: nothing is shared with the method."""
    covs, at = spds(np.random.default_rng(0), 4, 3), np.tril_indices(3)

    def F(v):
        L = np.zeros((3, 3))
        L[at] = v
        return np.mean([reference.upsilon(A, L @ L.T, 0.5) for A in covs]) / 2

    best = minimize(F, np.linalg.cholesky(covs.mean(0))[at], tol=1e-10)
    r = suot_barycenter(covs, tau=0.5)
    L = np.zeros((3, 3))
    L[at] = best.x
    np.testing.assert_allclose(r.cov, L @ L.T, atol=1e-5)
    assert r.value <= best.fun + 1e-12


def test_scalar_free_mass():
    x = np.array([0.9, 1, 1.1, 1.2, 30])[:, None, None]
    r = suot_barycenter(x, tau=1.0, mass="free", init=[[1.0]], tol=1e-11)
    assert r.cov[0, 0] == pytest.approx(1.1745043028, abs=1e-9)
    assert 2 * r.value == pytest.approx(0.1288859699, abs=1e-9)
    assert r.weights_[-1] == pytest.approx(0.0847522563, abs=1e-9)
    fixed = suot_barycenter(x, tau=1.0, init=[[1.0]], tol=1e-11)
    assert fixed.cov[0, 0] == pytest.approx(1.3975089812, abs=1e-9)


def test_free_mass_is_a_minimum_of_its_objective():
    x = np.array([0.9, 1, 1.1, 1.2, 30])
    r = suot_barycenter(x[:, None, None], tau=1.0, mass="free", tol=1e-11)

    def F(b):
        u = np.array([reference.upsilon(np.array([[a]]), np.array([[b]]), 1.0) for a in x])
        return np.mean(1 - np.exp(-u)) / 2

    grid = np.linspace(0.2, 40, 800)
    assert r.value <= min(map(F, grid)) + 1e-12
    assert r.value == pytest.approx(F(r.cov[0, 0]), abs=1e-12)


def test_infinite_tau_equals_the_peers():
    ot = pytest.importorskip("ot")
    pyriemann = pytest.importorskip("pyriemann.geometry.mean")
    rng = np.random.default_rng(1)
    for _ in range(5):
        covs = spds(rng, 8, 5, 0.05, 2)
        ours = bures_barycenter(covs).cov
        scale = np.linalg.norm(ours)
        theirs = ot.gaussian.bures_barycenter_fixpoint(covs, eps=1e-12, num_iter=1000)
        assert np.linalg.norm(ours - theirs) <= 1e-6 * scale
        theirs = pyriemann.mean_wasserstein(covs, tol=1e-12, maxiter=1000)
        assert np.linalg.norm(ours - theirs) <= 1e-6 * scale
        near = suot_barycenter(covs, tau=1e6).cov
        assert np.linalg.norm(ours - near) <= 1e-5 * scale


def test_zero_tau_is_covariance_intersection():
    rng = np.random.default_rng(2)
    covs, a = spds(rng, 4, 3), rng.standard_normal((4, 3))
    lam = np.array([0.1, 0.2, 0.3, 0.4])
    P = np.linalg.inv(covs)
    harmonic = np.linalg.inv(np.einsum("i,ijk", lam, P))
    mean = harmonic @ np.einsum("i,ijk,ik->j", lam, P, a)
    r = suot_barycenter(covs, means=a, weights=lam, tau=0)
    np.testing.assert_allclose(r.cov, harmonic, atol=1e-14)
    np.testing.assert_allclose(r.mean, mean, atol=1e-13)
    near = suot_barycenter(covs, means=a, weights=lam, tau=1e-4)
    np.testing.assert_allclose(near.cov, harmonic, rtol=0, atol=1e-3 * np.linalg.norm(harmonic))
    np.testing.assert_allclose(near.mean, mean, atol=1e-3)
    np.testing.assert_allclose(near.outlier_score / 1e-4, r.outlier_score, rtol=1e-2)


def test_zero_tau_of_singular_inputs_is_the_limit():
    covs = np.stack([np.diag([1.0, 2.0, 0.0]), np.diag([3.0, 1.0, 1.0])])
    r = suot_barycenter(covs, tau=0)
    np.testing.assert_allclose(r.cov, np.diag([1.5, 4 / 3, 0]), atol=1e-12)
    assert r.rank_deficient


def test_means_fixed_mass():
    """The mean is that of the closed form, and B does not depend on the means."""
    rng = np.random.default_rng(3)
    covs, a, tau = spds(rng, 5, 3), rng.standard_normal((5, 3)), 0.6
    r = suot_barycenter(covs, means=a, tau=tau, tol=1e-11)
    np.testing.assert_allclose(r.cov, suot_barycenter(covs, tau=tau, tol=1e-11).cov, atol=1e-9)

    def total(b):
        return suot_gaussian(covs, r.cov, tau, mean_a=a, mean_b=b).value.mean()

    best = minimize(total, a.mean(0), tol=1e-12)
    np.testing.assert_allclose(r.mean, best.x, atol=1e-6)
    np.testing.assert_allclose(
        r.outlier_score, suot_gaussian(covs, r.cov, tau, mean_a=a, mean_b=r.mean).upsilon
    )


def test_means_free_mass_is_stationary_in_both():
    rng = np.random.default_rng(4)
    covs, a, tau = spds(rng, 6, 2), rng.standard_normal((6, 2)), 0.8
    a[0] += 50
    r = suot_barycenter(covs, means=a, tau=tau, mass="free", tol=1e-10)
    assert r.weights_[0] < 1e-6
    B = torch.tensor(r.cov, requires_grad=True)
    b = torch.tensor(r.mean, requires_grad=True)
    args = (torch.tensor(covs), B, tau)
    value = suot_gaussian(*args, mean_a=torch.tensor(a), mean_b=b, mass="free").value.mean() / 2
    value.backward()
    assert value.item() == pytest.approx(r.value, abs=1e-12)
    assert B.grad.norm() < 1e-8
    assert b.grad.norm() < 1e-8


def test_edge_cases():
    A = COVS[0]
    one = suot_barycenter(A[None], tau=0.3)
    np.testing.assert_allclose(one.cov, A, atol=1e-13)
    assert one.outlier_score[0] < 1e-14
    assert one.n_iter == 0
    np.testing.assert_allclose(suot_barycenter(np.stack([A] * 4), tau=0.3).cov, A, atol=1e-8)
    dropped = suot_barycenter(COVS, weights=[0.5, 0.5, 0.0], tau=0.7, tol=1e-11)
    np.testing.assert_allclose(
        dropped.cov, suot_barycenter(COVS[:2], tau=0.7, tol=1e-11).cov, atol=1e-10
    )
    assert dropped.outlier_score.shape == (3,)
    assert suot_barycenter(COVS, weights=[0.5, 0.5, 0]).tau == suot_barycenter(COVS[:2]).tau


@pytest.mark.parametrize("unit", [1e-110, 1e-12, 1e110])
@pytest.mark.parametrize("tau", [0.5, math.inf])
def test_any_unit(unit, tau):
    r = suot_barycenter(COVS, weights=WEIGHTS, tau=tau, tol=1e-10)
    other = suot_barycenter(unit * COVS, weights=WEIGHTS, tau=unit * tau, tol=1e-10)
    np.testing.assert_allclose(other.cov / unit, r.cov, atol=1e-9)
    assert other.n_iter == r.n_iter


def test_a_singular_input_of_weight_zero_changes_nothing():
    covs = np.concatenate([COVS, np.diag([1.0, 0.0])[None]])
    r = suot_barycenter(covs, weights=[*WEIGHTS, 0], tau=1.0, tol=1e-11)
    np.testing.assert_allclose(r.cov, EXPECTED[1.0][0], atol=1e-9)
    free = suot_barycenter(covs, weights=[*WEIGHTS, 0], tau=1.0, mass="free", mass_tau="median")
    without = suot_barycenter(COVS, weights=WEIGHTS, tau=1.0, mass="free", mass_tau="median")
    np.testing.assert_allclose(free.cov, without.cov, atol=1e-6)


@pytest.mark.parametrize("tau", [0.2, 2.0, math.inf])
def test_singular_inputs(tau):
    rng = np.random.default_rng(5)
    X = rng.standard_normal((6, 4, 2))
    covs = X @ X.swapaxes(-1, -2)
    r = suot_barycenter(covs, tau=tau, tol=1e-9)
    assert r.rank_deficient
    assert r.converged
    # Optimal transport is only Hoelder continuous at singular matrices: the ridge enters by its root.
    near = suot_barycenter(covs + 1e-10 * np.eye(4), tau=tau)
    np.testing.assert_allclose(r.cov, near.cov, atol=1e-3)


def test_common_null_space_is_reduced_and_embedded():
    rng = np.random.default_rng(6)
    small, Q = spds(rng, 4, 2), np.linalg.qr(rng.standard_normal((5, 5)))[0][:, :2]
    r = suot_barycenter(Q @ small @ Q.T, tau=0.4, tol=1e-11)
    np.testing.assert_allclose(
        Q.T @ r.cov @ Q, suot_barycenter(small, tau=0.4, tol=1e-11).cov, atol=1e-9
    )
    assert np.linalg.matrix_rank(r.cov, tol=1e-10) == 2
    assert r.relaxed_covs.shape == (4, 5, 5)
    assert r.rank_deficient


def test_relaxed_inputs_and_scores_are_those_of_the_pairs():
    r = suot_barycenter(COVS, weights=WEIGHTS, tau=1.0)
    pairs = suot_gaussian(COVS, r.cov, 1.0)
    np.testing.assert_allclose(r.relaxed_covs, pairs.sigma_x, atol=1e-12)
    np.testing.assert_allclose(r.outlier_score, pairs.upsilon, atol=1e-12)


@settings(max_examples=8)
@given(seed=st.integers(0, 10**6), tau=st.sampled_from([0.05, 0.7, 8.0, math.inf]))
def test_equivariance(seed, tau):
    rng = np.random.default_rng(seed)
    covs, s = spds(rng, 4, 3), 3.7
    at = {"tol": 1e-11, "record": False}
    B = suot_barycenter(covs, tau=tau, **at).cov
    Q = np.linalg.qr(rng.standard_normal((3, 3)))[0]
    rotated = Q @ covs @ Q.T
    rotated = (rotated + rotated.swapaxes(-1, -2)) / 2
    np.testing.assert_allclose(suot_barycenter(rotated, tau=tau, **at).cov, Q @ B @ Q.T, atol=1e-9)
    scaled = suot_barycenter(s**2 * covs, tau=s**2 * tau, **at).cov
    np.testing.assert_allclose(scaled, s**2 * B, atol=1e-9 * s**2)
    np.testing.assert_allclose(
        suot_barycenter(covs[rng.permutation(4)], tau=tau, **at).cov, B, atol=1e-9
    )
    twice = suot_barycenter(np.concatenate([covs, covs[:1]]), tau=tau, **at).cov
    doubled = suot_barycenter(covs, weights=np.array([2, 1, 1, 1]) / 5, tau=tau, **at).cov
    np.testing.assert_allclose(twice, doubled, atol=1e-9)


def test_a_batch_equals_the_loop():
    rng = np.random.default_rng(7)
    covs = spds(rng, 64 * 10, 8).reshape(64, 10, 8, 8)
    taus = 10 ** rng.uniform(-1, 1, 64)
    together = suot_barycenter(covs, tau=taus, tol=1e-11)
    assert together.cov.shape == (64, 8, 8)
    assert together.n_iter.shape == (64,)
    for i in range(64):
        one = suot_barycenter(covs[i], tau=taus[i], tol=1e-11)
        np.testing.assert_allclose(together.cov[i], one.cov, atol=1e-10)
        assert together.optimality_gap[i] == pytest.approx(one.optimality_gap, abs=1e-12)
    frame = together.history
    assert frame.index.names == ["problem", "k"]
    assert len(frame.loc[3]) == together.n_iter[3] + 1


@pytest.mark.acceptance
def test_a_batch_with_means_free_mass_and_singular_problems_equals_the_loop():
    rng = np.random.default_rng(8)
    covs, a = spds(rng, 3 * 6, 3).reshape(3, 6, 3, 3), rng.standard_normal((3, 6, 3))
    covs[1, :, 2] = covs[1, :, :, 2] = 0
    options = {"tau": 0.5, "mass": "free", "mass_tau": "median", "tol": 1e-10}
    together = suot_barycenter(covs, means=a, **options)
    for i in range(3):
        one = suot_barycenter(covs[i], means=a[i], **options)
        np.testing.assert_allclose(together.cov[i], one.cov, atol=1e-8)
        np.testing.assert_allclose(together.mean[i], one.mean, atol=1e-8)
    assert together.relaxed_covs.shape == covs.shape


@pytest.mark.parametrize("init", ["euclid", "identity", "harmonic", "medoid", np.eye(2)])
def test_every_start_leads_to_the_one_optimum(init):
    r = suot_barycenter(COVS, weights=WEIGHTS, tau=1.0, tol=1e-11, init=init)
    np.testing.assert_allclose(r.cov, EXPECTED[1.0][0], atol=1e-9)


def test_tau_auto_and_kinds():
    r = suot_barycenter(torch.tensor(COVS, dtype=torch.float32))
    assert isinstance(r.cov, torch.Tensor)
    assert r.cov.dtype == torch.float32
    assert r.tau == pytest.approx(np.trace(COVS.mean(0)) / 2)
    assert isinstance(suot_barycenter(COVS.astype(int) + np.eye(2, dtype=int)).cov, np.ndarray)


def test_max_iter_returns_the_iterate_and_warns_with_the_gap():
    with pytest.warns(ConvergenceWarning, match="proved to be at most"):
        r = suot_barycenter(COVS, tau=0.1, method="eggd", max_iter=3)
    assert r.n_iter == 3
    assert not r.converged
    B = COVS.mean(0)
    for _ in range(3):
        B = reference.barycenter_step(B, COVS, np.full(3, 1 / 3), 0.1)
    np.testing.assert_allclose(r.cov, B, atol=1e-12)
    with pytest.warns(ConvergenceWarning):
        np.testing.assert_allclose(suot_barycenter(COVS, max_iter=0).cov, COVS.mean(0))


def test_eggd_with_another_step_follows_the_reference():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        r = suot_barycenter(COVS, tau=0.7, method="eggd", step=0.3, max_iter=2)
    B = COVS.mean(0)
    for _ in range(2):
        B = reference.barycenter_step(B, COVS, np.full(3, 1 / 3), 0.7, 0.3)
    np.testing.assert_allclose(r.cov, B, atol=1e-12)


ASYMMETRIC = COVS.copy()
ASYMMETRIC[2, 0, 1] += 1e-3
INDEFINITE = COVS.copy()
INDEFINITE[1] = np.diag([1.0, -0.25])
NAN = COVS.copy()
NAN[2, 1, 1] = np.nan
BAD = {
    "not square": ({"covs": np.ones((3, 2, 3))}, "shape"),
    "asymmetric": ({"covs": ASYMMETRIC}, r"covs\[2\].*symmetric"),
    "indefinite": ({"covs": INDEFINITE}, r"covs\[.*1\].*-0.25"),
    "nan": ({"covs": NAN}, r"index \(2, 1, 1\)"),
    "sizes": ({"covs": [np.eye(2), np.eye(3)]}, r"one shape, got \[\(2, 2\), \(3, 3\)\]"),
    "words": ({"covs": [["a", "b"], ["c", "d"]]}, "array of numbers"),
    "unit": ({"covs": 1e-200 * COVS}, "change the unit"),
    "nothing": ({"covs": None}, "array of numbers"),
    "taus": ({"covs": COVS, "tau": [1.0, 2.0]}, "tau must have a shape"),
    "many weights": (
        {"covs": COVS, "weights": np.full((2, 3), 1 / 3)},
        "weights must have a shape",
    ),
    "mass_taus": ({"covs": COVS, "mass": "free", "mass_tau": [1.0, 2.0]}, "mass_tau must have"),
    "one matrix": ({"covs": np.eye(2)}, "n >= 1"),
    "none": ({"covs": np.empty((0, 2, 2))}, "none"),
    "tau < 0": ({"covs": COVS, "tau": -1.0}, "at least 0"),
    "tau nan": ({"covs": COVS, "tau": math.nan}, "at least 0"),
    "tau word": ({"covs": COVS, "tau": "big"}, "auto"),
    "negative weight": ({"covs": COVS, "weights": [1, 1, -1]}, "index"),
    "zero weights": ({"covs": COVS, "weights": [0, 0, 0]}, "not all be 0"),
    "weights": ({"covs": COVS, "weights": [0.5, 0.5]}, "one entry an input"),
    "means": ({"covs": COVS, "means": np.zeros((3, 3))}, "means must have shape"),
    "init": ({"covs": COVS, "init": "zero"}, "init must be one of"),
    "singular init": ({"covs": COVS, "init": np.diag([1.0, 0.0])}, "positive definite"),
    "init size": ({"covs": COVS, "init": np.eye(3)}, "size of the inputs, 2, got 3"),
    "tol": ({"covs": COVS, "tol": 0.0}, "tol must be positive"),
    "max_iter": ({"covs": COVS, "max_iter": -1}, "max_iter"),
    "step": ({"covs": COVS, "method": "eggd", "step": 0.0}, "step must be positive"),
    "mass": ({"covs": COVS, "mass": "none"}, "mass must be one of"),
    "mass_tau of fixed": ({"covs": COVS, "mass_tau": 1.0}, "fixed mass"),
    "mass_tau word": ({"covs": COVS, "mass": "free", "mass_tau": "mean"}, "median"),
    "free at 0": ({"covs": COVS, "mass": "free", "tau": 0}, "positive tau"),
    "all zero": ({"covs": np.zeros((2, 2, 2)), "tau": 1.0}, "not 0"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name, unchecked):
    options, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        suot_barycenter(**options)


def test_unknown_method_names_the_ones_there_are():
    with pytest.raises(LookupError, match="bb"):
        suot_barycenter(COVS, method="sgd")


def test_weights_are_renormalised_with_a_warning():
    with pytest.warns(UserWarning, match="sum to 2"):
        r = suot_barycenter(COVS, weights=[1, 0.6, 0.4], tau=1.0, tol=1e-11)
    np.testing.assert_allclose(r.cov, EXPECTED[1.0][0], atol=1e-9)
