"""What rounding does to inputs of which one direction dominates, and results that have to travel."""

import pickle
import warnings

import mpmath as mp
import numpy as np
import pytest
import torch
from sklearn.exceptions import ConvergenceWarning

from surefoot.barycenter import SUOTBarycenterLayer, SUOTMean, bures_barycenter, suot_barycenter
from surefoot.barycenter._chord import outcome
from surefoot.barycenter._solver import solve as solving
from surefoot.errors import SurefootError
from surefoot.guarantee import Verdict

SPIKE = np.outer([1, 0.3], [1, 0.3])
ROUND = np.array([[2.0, 1.0], [1.0, 3.0]])
OTHER = np.array([[1.0, -0.4], [-0.4, 2.0]])
BURSTS = {
    "one": ([ROUND + 1e10 * SPIKE], 1e-3),
    "one, tau 1": ([ROUND + 4e11 * SPIKE], 1.0),
    "beside I": ([ROUND + 1e10 * SPIKE, np.eye(2)], 1e-3),
    "beside I, tau 1": ([ROUND + 1e10 * SPIKE, np.eye(2)], 1.0),
    "two": ([ROUND + 6e10 * SPIKE, OTHER], 1.0),
    "directions": (
        [ROUND + 1e11 * np.outer(v, v) for v in ([1, 0.3], [0.2, 1], [1, -0.7])],
        1.0,
    ),
}


def true_residual(B, covs, tau):
    """||G||_B / sqrt(tr B) in sixty digits."""
    with mp.workdps(60):
        d, point = len(B), mp.matrix(B.tolist())

        def along(M, f):
            w, Q = mp.eigsy(M)
            return Q * mp.diag([f(max(x, mp.mpf(0))) for x in w]) * Q.T

        root = along(point, mp.sqrt)
        G = mp.eye(d)
        for each in covs:
            A = mp.matrix(each.tolist())
            M = (A + mp.eye(d) * (mp.mpf(tau) / 2)) ** -1 * A
            P = root * ((M + M.T) / 2) * root
            T = along((P + P.T) / 2, lambda e: (e + mp.sqrt(e * e + 2 * mp.mpf(tau) * e)) / 2)
            G = G - root**-1 * T * root**-1 / len(covs)
        X = G * point * G
        return float(mp.sqrt(sum(X[i, i] for i in range(d)) / sum(point[i, i] for i in range(d))))


@pytest.mark.parametrize("name", BURSTS)
@pytest.mark.parametrize("record", [False, True])
def test_a_residual_is_never_said_smaller_than_it_is(name, record):
    covs, tau = np.array(BURSTS[name][0]), BURSTS[name][1]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        r = suot_barycenter(covs, tau=tau, record=record)
    true = true_residual(r.cov, covs, tau)
    assert true <= r.grad_norm <= 1e3 * max(true, 1e-9)
    assert r.converged is (r.grad_norm <= 1e-8)
    assert r.record().fact("converged").all == (r.converged,)
    assert r.value >= 0


@pytest.mark.parametrize("name", BURSTS)
@pytest.mark.parametrize("method", ["newton", "hybrid", "eggd_adaptive", "bb"])
def test_nor_by_an_eigendecomposition_a_step(name, method, monkeypatch):
    monkeypatch.setattr(solving, "suits", lambda *a: False)
    covs, tau = np.array(BURSTS[name][0]), BURSTS[name][1]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        r = suot_barycenter(covs, tau=tau, method=method, max_iter=60)
        batch = suot_barycenter(np.stack([covs, covs]), tau=tau, method=method, max_iter=60)
    true = true_residual(r.cov, covs, tau)
    assert true <= r.grad_norm * (1 + 1e-6)
    assert r.converged is (r.grad_norm <= 1e-8)
    assert r.record().fact("converged").all == (r.converged,)
    for each in batch.cov:
        assert true_residual(each, covs, tau) <= batch.grad_norm.max() * (1 + 1e-6)


def test_it_is_measured_only_where_rounding_can_be_seen(monkeypatch):
    seen = []
    kept = outcome.moved_by_rounding
    monkeypatch.setattr(outcome, "moved_by_rounding", lambda *a: seen.append(kept(*a)) or seen[-1])
    suot_barycenter(np.array([ROUND, OTHER]), tau=1.0)
    assert seen == [0.0]
    with pytest.warns(ConvergenceWarning, match="rounding"):
        suot_barycenter(np.array(BURSTS["two"][0]), tau=1.0)
    assert seen[1] > 1e-8


def samples(seed, d, count, n=8):
    rng = np.random.default_rng(seed)
    return np.array([np.cov(rng.standard_normal((d, count))) for _ in range(n)])


@pytest.mark.parametrize("options", [{"tau": 1.0}, {"tau": np.inf}, {"tau": 1.0, "mass": "free"}])
@pytest.mark.parametrize("seed", range(6))
def test_singular_inputs_have_certificates_and_a_summary(seed, options):
    r = suot_barycenter(samples(seed, 5, 4), **options)
    assert not [c for c in r.certificates() if c.verdict is Verdict.BROKEN]
    assert "converged" in r.summary()


@pytest.mark.parametrize("init", ["identity", "medoid", "harmonic"])
def test_a_temperature_that_moves_leaves_no_descent_to_telescope(init):
    rng = np.random.default_rng(10)
    scales = 10.0 ** rng.integers(-3, 4, 4)
    covs = samples(10, 3, 8, n=4) * scales[:, None, None]
    r = suot_barycenter(covs, mass="free", mass_tau="median", init=init, method="eggd")
    verdicts = {c.name: c.verdict for c in r.certificates()}
    assert Verdict.BROKEN not in verdicts.values()
    assert "converged" in r.summary()


@pytest.mark.parametrize("method", ["bb", "eggd", "hybrid", "newton", "autograd"])
@pytest.mark.parametrize("tau", [0.0, 1.0])
def test_results_travel(method, tau):
    r = suot_barycenter(samples(1, 3, 9), tau=tau, method=method, record=tau > 0)
    again = pickle.loads(pickle.dumps(r))
    assert np.array_equal(again.cov, r.cov)
    assert np.array_equal(again.relaxed_covs, r.relaxed_covs)
    assert again.summary() == r.summary()
    if tau:
        assert again.history.equals(r.history)


def test_fitted_estimators_travel():
    fitted = SUOTMean(tau=1.0).fit(samples(2, 3, 9))
    again = pickle.loads(pickle.dumps(fitted))
    assert np.array_equal(again.covariance_, fitted.covariance_)


def test_newton_on_a_point_that_is_lost_says_so():
    covs = np.array([np.diag([1.0, 1e-3]) for _ in range(2)])
    for A, t in zip(covs, (0.3, 1.0), strict=True):
        R = np.array([[np.cos(t), -np.sin(t)], [np.sin(t), np.cos(t)]])
        A[:] = R @ A @ R.T
    covs = (covs + covs.swapaxes(1, 2)) / 2
    with pytest.raises(SurefootError, match="'newton' came to a point that is not positive"):
        suot_barycenter(covs, tau=1.0, method="newton", init="medoid")


def test_what_momentum_loses_is_named():
    rng = np.random.default_rng(0)
    covs = np.array([np.cov(rng.standard_normal((4, 12))) for _ in range(6)])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(SurefootError, match="'autograd_momentum_cyclic' came to a point"):
            suot_barycenter(covs, tau=1.0, method="autograd_momentum_cyclic")
        assert (
            "autograd_cyclic" in suot_barycenter(covs, tau=1.0, method="autograd_cyclic").summary()
        )


def test_other_arrays_are_the_same_numbers():
    covs = samples(3, 4, 12)
    wanted = suot_barycenter(covs, tau=1.0).cov
    weights = np.full(8, 0.125)
    weights.setflags(write=False)
    assert np.array_equal(suot_barycenter(covs, tau=1.0, weights=weights).cov, wanted)
    for given in (covs.astype(">f8"), covs.astype(np.longdouble)):
        assert np.allclose(suot_barycenter(given, tau=1.0).cov, wanted, rtol=1e-12)
    half = torch.tensor(covs).bfloat16()
    assert torch.equal(
        suot_barycenter(half, tau=1.0).cov, suot_barycenter(half.double(), tau=1.0).cov
    )
    turned = torch.tensor(covs + 0j)
    found = bures_barycenter(turned.mH)
    assert torch.allclose(found.cov, bures_barycenter(turned.mH.resolve_conj()).cov)


def test_what_is_meant_is_named():
    covs = samples(3, 4, 12)
    refused = {
        "positive semidefinite": lambda: suot_barycenter(-covs, tau=1.0),
        "weights must have a sum": lambda: suot_barycenter(covs, tau=1.0, weights=[1.7e308] * 8),
        "tau must be a number": lambda: suot_barycenter(covs, tau=None),
        "tau is inf for bures": lambda: bures_barycenter(covs, tau=1.0),
        "problem must be": lambda: suot_barycenter(covs[None], tau=1.0).certificates(1),
    }
    for said, call in refused.items():
        with pytest.raises(ValueError, match=said):
            call()


def test_the_layer_takes_an_array():
    covs = samples(3, 4, 12)
    found = SUOTBarycenterLayer(1.0)(covs)
    assert torch.equal(found, SUOTBarycenterLayer(1.0)(torch.tensor(covs)))
