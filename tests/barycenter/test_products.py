"""The descent by matrix products, against eigendecompositions, closed forms and fifty digits."""

import math
import warnings

import mpmath as mp
import numpy as np
import pytest
import torch
from sklearn.exceptions import ConvergenceWarning

from surefoot import Verdict
from surefoot.barycenter import (
    GuaranteeViolation,
    bures_barycenter,
    mean_suot,
    optimality_gap,
    suot_barycenter,
    suot_gaussian,
    tau_path,
)
from surefoot.barycenter._chord.block import logdet_of_one_plus
from surefoot.barycenter._chord.couplings import Couplings, Unsuited
from surefoot.barycenter._solver.descent import check

WAYS = ["bb", "eggd", "hybrid"]
TAUS = [0.01, 0.3, 10.0, math.inf]


def spread(seed, n, d, condition, shared=False):
    """Covariances of this condition number; shared: all small in the same directions, as in EEG."""
    rng = np.random.default_rng(seed)
    Q = np.linalg.qr(rng.standard_normal((n, d, d)))[0]
    w = np.exp(rng.uniform(-math.log(condition), 0, (n, d)))
    A = (Q * w[:, None]) @ Q.swapaxes(1, 2)
    if shared:
        base = Q[0] * np.sqrt(np.geomspace(1 / condition, 1, d))
        X = rng.standard_normal((n, d, 4 * d))
        A = base @ (X @ X.swapaxes(1, 2) / (4 * d)) @ base.T
    return (A + A.swapaxes(1, 2)) / 2


def hermitian(seed, n, d):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, d, 3 * d)) + 1j * rng.standard_normal((n, d, 3 * d))
    return X @ X.conj().swapaxes(1, 2) / (6 * d)


def real_form(A):
    return np.block([[A.real, -A.imag], [A.imag, A.real]])


def couplings(covs, tau, weights=None):
    weights = np.full(len(covs), 1 / len(covs)) if weights is None else weights
    return Couplings(covs, weights, tau, math.inf, symmetric=True, spectra=None)


@pytest.mark.parametrize("method", WAYS)
@pytest.mark.parametrize("angle", [0.0, 0.7])
@pytest.mark.parametrize("e", [1e-7, 1e-8, 1e-10, 1e-12])
def test_small_eigenvalues_of_regular_inputs_stay(e, angle, method):
    """Commuting inputs: B^1/2 is the mean of the roots, 2.25 diag(1, e)."""
    c, s = math.cos(angle), math.sin(angle)
    Q = np.array([[c, -s], [s, c]])
    covs = Q @ np.array([np.diag([1, e]), np.diag([4, 4 * e])]) @ Q.T
    covs = (covs + covs.swapaxes(1, 2)) / 2
    r = bures_barycenter(covs, method=method)
    found = Q.T @ r.cov @ Q
    allowed = 1e-15 if angle == 0 else 1e-15 / e
    assert abs(found[1, 1] / (2.25 * e) - 1) <= max(allowed, 1e-15)
    assert abs(found[0, 0] / 2.25 - 1) <= 2e-15
    assert r.converged
    assert not r.rank_deficient
    assert r.optimality_gap < (1e-11 if method == "bb" else 1e-4)
    assert all(x.verdict in (Verdict.KEPT, Verdict.NOT_PROMISED) for x in r.certificates())


def test_distances_of_ill_conditioned_pairs():
    """(sqrt a - sqrt b)^2 summed, where a product of both has no digit left of the small one."""
    A, B = np.diag([1.0, 1e-8]), np.diag([4.0, 9e-8])
    exact = 1 + 4e-8
    assert suot_gaussian(A, B, tau=math.inf).value == pytest.approx(exact, abs=2e-15)


def test_a_point_that_rounding_made_singular_is_not_certified():
    covs = np.array([np.diag([1, 1e-8]), np.diag([4, 4e-8])])
    c, s = math.cos(0.7), math.sin(0.7)
    Q = np.array([[c, -s], [s, c]])
    turned = Q @ covs @ Q.T
    with pytest.raises(ValueError, match="positive definite"):
        optimality_gap(Q @ np.diag([2.25, 0]) @ Q.T, turned, tau=math.inf)
    assert optimality_gap(np.diag([2.25, 1e-15]), covs, tau=math.inf) > 1e-9


def square_root(M):
    E, Q = mp.eigsy(M)
    roots = [mp.sqrt(e) for e in E]
    return Q * mp.diag(roots) * Q.T, Q * mp.diag([1 / r for r in roots]) * Q.T


def true_residual_and_value(B, covs):
    with mp.workdps(50):
        B = mp.matrix(B.tolist())
        R, inverse = square_root(B)
        K, F = mp.zeros(B.rows), mp.mpf(0)
        for a in covs:
            A = mp.matrix(a.tolist())
            root = square_root(R * A * R)[0]
            K += root / len(covs)
            F += sum(A[i, i] + B[i, i] - 2 * root[i, i] for i in range(B.rows)) / (2 * len(covs))
        G = mp.eye(B.rows) - inverse * K * inverse
        P = G * B * G
        trace = lambda M: sum(M[i, i] for i in range(M.rows))  # noqa: E731
        return float(mp.sqrt(trace(P) / trace(B))), F


@pytest.mark.parametrize("record", [True, False])
@pytest.mark.parametrize("condition", [1e4, 1e6, 1e7])
def test_what_is_reported_is_true_to_fifty_digits(condition, record, measured):
    covs = spread(2, 6, 6, condition, shared=True)
    r = bures_barycenter(covs, tol=1e-10, record=record)
    assert r.converged
    residual, F = true_residual_and_value(r.cov, covs)
    _, best = true_residual_and_value(bures_barycenter(covs, tol=1e-13).cov, covs)
    measured(f"residual, shared condition {condition:g}, record={record}", "true to 1 %",
             f"{r.grad_norm:.3g} reported, {residual:.3g} true")  # fmt: skip
    assert residual <= 1.01 * r.grad_norm + 1e-15
    assert r.grad_norm <= 1.01 * residual + 2e-12
    assert float(F - best) <= r.optimality_gap


@pytest.mark.parametrize("tau", TAUS)
@pytest.mark.parametrize("size", [0.05, 0.15, 0.25])
def test_chord_steps_lead_to_what_an_eigendecomposition_gives(tau, size):
    covs = spread(3, 7, 6, 1e3)
    rng = np.random.default_rng(4)
    D = rng.standard_normal((6, 6))
    D = D + D.T
    D *= size / np.abs(np.linalg.eigvalsh(D)).max()
    at, anew = couplings(covs, tau), couplings(covs, tau)
    at.base(covs.mean(axis=0))
    for goal in (1e-2, 1e-4, 1e-7, 1e-10, 1e-13):
        found = at.at(D, goal)
        assert found is not None
    B = at.L @ (np.eye(6) + D) @ at.L.T
    exact = anew.base((B + B.T) / 2)
    back = at.inverse.T @ found @ at.inverse
    fresh = anew.inverse.T @ exact @ anew.inverse
    np.testing.assert_allclose(back, fresh, rtol=0, atol=1e-10 * np.abs(fresh).max())
    np.testing.assert_allclose(at.upsilon(), anew.upsilon(), rtol=0, atol=1e-12 * at.trace)
    size, proved = at.polish()
    assert size <= 1e-12
    assert proved <= 1e-10


def test_the_error_of_an_unfinished_point_is_what_is_said_of_it():
    """A coarse point: its measured error, and the proved bound, against the exact maps."""
    covs = spread(5, 5, 4, 100)
    at, anew = couplings(covs, 1.0), couplings(covs, 1.0)
    at.base(covs.mean(axis=0))
    D = 0.2 * np.diag([1.0, -1.0, 0.5, -0.5])
    assert at.at(D, 1e-3) is not None
    X = at.X.copy()
    B = at.L @ (np.eye(4) + D) @ at.L.T
    anew.base((B + B.T) / 2)
    exact = anew.Y @ anew.inverse
    S = exact.swapaxes(1, 2) @ exact
    rows = at.Y @ at.inverse
    off = rows.swapaxes(1, 2) @ X @ rows - S
    relative = [
        np.abs(np.linalg.eigvals(np.linalg.solve(s, o))).max() for s, o in zip(S, off, strict=True)
    ]
    _, proved = at.polish()
    assert max(relative) <= proved
    assert max(relative) > 1e-12


def runs(monkeypatch, covs, **options):
    """What the couplings were asked for on a run: points refined in place, bases, moves that failed."""
    seen = {"refined": 0, "bases": 0, "refused": 0}
    move, base = Couplings._evaluate, Couplings.base

    def at(self, D, goal):
        seen["refined"] += D is None
        found = move(self, D, goal)
        seen["refused"] += found is None
        return found

    def anew(self, B):
        seen["bases"] += 1
        return base(self, B)

    monkeypatch.setattr(Couplings, "_evaluate", at)
    monkeypatch.setattr(Couplings, "base", anew)
    return suot_barycenter(covs, **options), seen


def test_a_far_start_and_a_slow_rate_take_new_bases(monkeypatch):
    covs = spread(6, 12, 6, 10)
    covs[:3] *= 1e4
    r, seen = runs(monkeypatch, covs, tau=0.01, tol=1e-9)
    assert r.converged
    assert seen["bases"] > 1
    plain = suot_barycenter(covs, tau=0.01, tol=1e-9, sqrt="newton-schulz")
    np.testing.assert_allclose(r.cov, plain.cov, rtol=0, atol=1e-6 * np.trace(plain.cov))


def test_a_point_too_coarse_for_its_residual_is_refined_in_place(monkeypatch):
    refined = 0
    for seed in range(12):
        covs = spread(seed, 15, 2, 10)
        with monkeypatch.context() as patch:
            r, seen = runs(patch, covs, tau=math.inf, tol=1e-9, record=False)
        refined += seen["refined"]
        residual, _ = true_residual_and_value(r.cov, covs)
        assert residual <= 1.01 * r.grad_norm
    assert refined > 0


@pytest.mark.parametrize("scale", [1e-6, 1e-3, 0.1, 2.0])
def test_log_determinants_keep_their_digits(scale):
    E = scale * spread(14, 4, 5, 10)
    with mp.workdps(40):
        exact = [float(mp.log(mp.det(mp.eye(5) + mp.matrix(e.tolist())))) for e in E]
    np.testing.assert_allclose(logdet_of_one_plus(E), exact, rtol=5e-15)


def test_far_above_the_inputs_the_price_costs_no_digits():
    """At tau = 1e9 variances F is that of tau = inf but for their square over tau."""
    covs = 1e-6 * spread(15, 8, 4, 100)
    far, infinite = (suot_barycenter(covs, tau=tau, tol=1e-12) for tau in (1e3, math.inf))
    assert far.value == pytest.approx(infinite.value, rel=1e-8)
    assert all(c.verdict != Verdict.BROKEN for c in far.certificates())


@pytest.mark.parametrize("tau", [0.1, 1.0, math.inf])
@pytest.mark.parametrize("shared", [False, True])
def test_every_step_of_a_record_keeps_its_promise(tau, shared):
    r = suot_barycenter(spread(7, 9, 6, 1e5, shared), tau=tau, tol=1e-10)
    assert {c.name: c.verdict for c in r.certificates()}["G1 descent of every step"] == Verdict.KEPT
    F = r.history["F"].to_numpy()
    assert (np.diff(F) <= r.history["rounding"].to_numpy()[1:]).all()


@pytest.mark.parametrize("tau", [0.05, 1.0, math.inf])
def test_equal_to_an_eigendecomposition_a_step(tau):
    for seed in range(6):
        covs = spread(seed, 8, 5, 50)
        ours = suot_barycenter(covs, tau=tau, tol=1e-11)
        other = suot_barycenter(covs, tau=tau, tol=1e-11, sqrt="newton-schulz")
        np.testing.assert_allclose(ours.cov, other.cov, rtol=0, atol=1e-9)
        np.testing.assert_allclose(ours.outlier_score, other.outlier_score, rtol=0, atol=1e-9)
        assert abs(ours.n_iter - other.n_iter) <= 1
        np.testing.assert_allclose(ours.relaxed_covs, other.relaxed_covs, rtol=0, atol=1e-8)


def test_singular_inputs_are_left_to_the_rank_rule():
    X = np.random.default_rng(8).standard_normal((5, 4, 3))
    covs = X @ X.swapaxes(1, 2)
    with pytest.raises(Unsuited):
        couplings(covs, 1.0).base(covs.mean(axis=0))
    r = suot_barycenter(covs, tau=1.0)
    assert r.rank_deficient
    assert r.converged


def test_means_batches_and_asymmetry_of_rounding_size():
    covs = spread(9, 20, 5, 30)
    means = np.random.default_rng(9).standard_normal((20, 5))
    one = suot_barycenter(covs, means=means, tau=1.0, tol=1e-11)
    plain = suot_barycenter(covs, means=means, tau=1.0, tol=1e-11, sqrt="newton-schulz")
    np.testing.assert_allclose(one.mean, plain.mean, atol=1e-12)
    np.testing.assert_allclose(one.outlier_score, plain.outlier_score, atol=1e-10)
    assert one.value == pytest.approx(plain.value, abs=1e-12)
    both = suot_barycenter(np.stack([covs, 2 * covs]), tau=1.0, tol=1e-11)
    np.testing.assert_allclose(both.cov[0], suot_barycenter(covs, tau=1.0, tol=1e-11).cov)
    bent = covs.copy()
    bent[3, 0, 1] += 1e-12
    np.testing.assert_allclose(
        suot_barycenter(bent, tau=1.0).cov, suot_barycenter(covs, tau=1.0).cov, atol=1e-10
    )


@pytest.mark.parametrize("temperature", [0.5, 5.0])
def test_free_mass(temperature):
    covs = spread(10, 12, 4, 30)
    covs[0] *= 1e3
    options = {"tau": 1.0, "mass": "free", "mass_tau": temperature, "tol": 1e-10}
    ours = suot_barycenter(covs, **options)
    other = suot_barycenter(covs, **options, sqrt="newton-schulz")
    np.testing.assert_allclose(ours.weights_, other.weights_, atol=1e-8)
    np.testing.assert_allclose(ours.cov, other.cov, atol=1e-7)
    assert ours.value == pytest.approx(other.value, abs=1e-12)


@pytest.mark.parametrize("tau", [0.05, 1.0, math.inf])
def test_complex_covariances_are_their_real_form(tau):
    covs = hermitian(11, 9, 4)
    weights = np.random.default_rng(11).dirichlet(np.ones(9))
    r = suot_barycenter(covs, weights=weights, tau=tau, tol=1e-11)
    real = suot_barycenter(real_form(covs), weights=weights, tau=tau, tol=1e-11)
    assert r.cov.dtype == np.complex128
    np.testing.assert_allclose(real_form(r.cov), real.cov, atol=1e-9)
    np.testing.assert_allclose(2 * r.outlier_score, real.outlier_score, atol=1e-9)
    np.testing.assert_allclose(real_form(r.relaxed_covs), real.relaxed_covs, atol=1e-8)
    assert 2 * r.value == pytest.approx(real.value, abs=1e-12)
    assert r.converged
    assert all(c.verdict in (Verdict.KEPT, Verdict.NOT_PROMISED) for c in r.certificates())
    np.testing.assert_array_equal(
        suot_barycenter(list(covs), weights=weights, tau=tau, tol=1e-11).cov, r.cov
    )
    two = suot_barycenter(np.stack([covs, covs]), weights=weights, tau=tau, tol=1e-11)
    np.testing.assert_array_equal(two.cov[1], r.cov)


@pytest.mark.parametrize(
    ("change", "options", "says"),
    [
        (lambda a: a.astype(np.complex64), {}, "complex128"),
        (lambda a: a + np.array([[0, 1j], [1j, 0]]), {}, "Hermitian"),
        (lambda a: a * np.nan, {}, "finite"),
        (lambda a: a - 9 * np.eye(2), {}, "positive definite"),
        (lambda a: a * 0 + np.array([[1, 1j], [-1j, 1]]), {}, "full rank"),
        (lambda a: a, {"method": "newton"}, "method must be 'bb' or 'eggd'"),
        (lambda a: a, {"mass": "free"}, "mass must be 'fixed'"),
        (lambda a: a, {"means": np.zeros((5, 2))}, "means must be None"),
        (lambda a: a, {"init": "medoid"}, "init must be"),
        (lambda a: a, {"init": np.eye(3)}, "init must be a positive definite"),
        (lambda a: a, {"tau": 0.0}, "tau must be positive"),
    ],
)
def test_what_complex_covariances_cannot_be(change, options, says):
    with pytest.raises(ValueError, match=says):
        suot_barycenter(change(hermitian(12, 5, 2)), **{"tau": 1.0, **options})


@pytest.mark.parametrize("tau", [1.0, math.inf])
@pytest.mark.parametrize("record", [True, False])
@pytest.mark.parametrize("sqrt", ["eigh", "newton-schulz"])
def test_nothing_follows_what_is_done_to_inputs_and_results_later(tau, record, sqrt):
    covs = spread(16, 6, 4, 30)
    kept = suot_barycenter(covs.copy(), tau=tau, record=record, sqrt=sqrt)
    r = suot_barycenter(covs, tau=tau, record=record, sqrt=sqrt)
    covs *= 7
    for array in (r.cov, r.weights_, r.outlier_score):
        array *= 0.5
    np.testing.assert_array_equal(r.relaxed_covs, kept.relaxed_covs)
    assert r.rate_bound == kept.rate_bound
    for a, b in zip(r.certificates(), kept.certificates(), strict=True):
        assert (a.verdict, a.ratio) == (b.verdict, b.ratio)


def test_arrays_that_nobody_may_write_to_are_taken_without_a_word():
    covs = spread(17, 5, 3, 10)
    expected = suot_barycenter(covs, tau=1.0).cov
    covs.flags.writeable = False
    np.testing.assert_array_equal(suot_barycenter(covs, tau=1.0).cov, expected)


def test_the_gap_of_a_candidate_is_refused_for_complex_ones():
    covs = hermitian(18, 4, 3)
    for B in (covs[0], np.eye(3)):
        with pytest.raises(ValueError, match="B and covs must be real"):
            optimality_gap(B, covs, tau=1.0)
    with pytest.raises(ValueError, match="B and covs must be real"):
        optimality_gap(covs[0], covs.real, tau=1.0)


def test_doors_take_complex_covariances():
    covs = hermitian(19, 8, 3)
    options = {"record": False, "optimality_gap": False}
    np.testing.assert_array_equal(
        mean_suot(tau=1.0)(covs), suot_barycenter(covs, tau=1.0, **options).cov
    )
    path = tau_path(covs, [0.5, math.inf])
    assert path.covs.dtype == np.complex128
    free = suot_barycenter(covs, tau=1.0, debias="trace")
    assert np.trace(free.cov).real == pytest.approx(np.trace(covs, axis1=1, axis2=2).real.mean())


def test_a_nan_ceiling_hides_no_step_that_climbed():
    reached, ceiling = torch.tensor([1.0, 3.0]).double(), torch.tensor([math.nan, 1.0]).double()
    with pytest.raises(GuaranteeViolation, match="objective is 3 "):
        check(reached, ceiling, torch.zeros(2).double(), 4)


def test_a_tolerance_below_rounding_ends():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        r = bures_barycenter(spread(13, 6, 4, 100), tol=1e-18, max_iter=60)
    assert r.grad_norm < 1e-13
