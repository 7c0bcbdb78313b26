"""The barycenter beside POT and pyRiemann: same inputs, one thread, every residual at most 1e-8.

The residual is ||G||_B / sqrt(tr B) at tau = inf, whoever computed B. Best of three, interleaved.
"""

import time
import warnings

import numpy as np
import pytest
import torch
from sklearn.exceptions import ConvergenceWarning

from surefoot.barycenter import bures_barycenter, suot_barycenter
from surefoot.barycenter.experiments import estimators, robustness
from surefoot.barycenter.study import BarycenterConfig

ot = pytest.importorskip("ot")
mean_wasserstein = pytest.importorskip("pyriemann.geometry.mean").mean_wasserstein

SIZES = [(100, 22), (50, 50), (20, 100)]
QUIET = {"certify": False, "record": False}


def spds(seed, n, d, low=0.1, high=1.0):
    rng = np.random.default_rng(seed)
    Q = np.linalg.qr(rng.standard_normal((n, d, d)))[0]
    A = (Q * rng.uniform(low, high, (n, d))[:, None]) @ Q.swapaxes(-1, -2)
    return (A + A.swapaxes(-1, -2)) / 2


def residual(B, covs):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return bures_barycenter(covs, init=np.asarray(B), max_iter=0, **QUIET).grad_norm


def best(*calls, rounds=3):
    """Least CPU seconds of this thread for each, rounds interleaved: the machine may be busy."""
    found = [np.inf] * len(calls)
    for _ in range(rounds):
        for i, call in enumerate(calls):
            start = time.thread_time()
            call()
            found[i] = min(found[i], time.thread_time() - start)
    return found


@pytest.mark.parametrize(("n", "d"), SIZES)
def test_plain_and_robust_barycenter_against_the_peers(n, d):
    torch.set_num_threads(1)
    covs = spds(0, n, d)
    calls = {
        "ours, tau = inf": lambda: bures_barycenter(covs, **QUIET).cov,
        "ours, tau = 1": lambda: suot_barycenter(covs, tau=1.0, **QUIET).cov,
        "POT fixed point": lambda: ot.gaussian.bures_barycenter_fixpoint(
            covs, eps=1e-9, num_iter=1000
        ),
        "pyRiemann": lambda: mean_wasserstein(covs, tol=1e-8, maxiter=1000),
    }
    for name, call in calls.items():
        if name != "ours, tau = 1":
            print(f"n={n} d={d} {name:16} residual {residual(call(), covs):.1e}")
    seconds = dict(zip(calls, best(*calls.values()), strict=True))
    ours = seconds["ours, tau = inf"]
    for name, spent in seconds.items():
        print(f"n={n} d={d} {name:16} x{spent / ours:.2f}")
    assert seconds["POT fixed point"] >= 3 * ours
    assert seconds["pyRiemann"] >= ours
    assert seconds["ours, tau = 1"] <= seconds["POT fixed point"]


def test_two_thousand_matrices_in_seconds():
    torch.set_num_threads(1)
    covs = spds(1, 2000, 22)
    (seconds,) = best(lambda: suot_barycenter(covs, tau=1.0, **QUIET), rounds=1)
    print(f"n=2000 d=22 tau=1: {seconds:.2f} s")
    assert seconds < 10


def test_a_batch_is_not_slower_than_the_loop():
    torch.set_num_threads(1)
    for n, d, least in ((10, 8, 1.0), (5, 3, 3.0)):
        covs = spds(2, 64 * n, d).reshape(64, n, d, d)
        loop, together = best(
            lambda covs=covs: [suot_barycenter(c, tau=1.0, **QUIET) for c in covs],
            lambda covs=covs: suot_barycenter(covs, tau=1.0, **QUIET),
        )
        print(f"64 problems n={n} d={d}: the loop takes x{loop / together:.2f}")
        assert loop >= least * together


@pytest.mark.xfail(
    reason="a bar not reached: seed 4 shifts by .109, and by .119 with its trials left out",
    strict=True,
)
def test_free_mass_on_scp1_stays_below_its_bar():
    """30 % spoilt trials move the free barycenter by at most .035, mean over five seeds."""
    covs = robustness.trial_covariances(BarycenterConfig(), "SelfRegulationSCP1")
    mean = estimators.MEANS["SUOT free, tau 1"]
    clean, found = mean(covs), {}
    for kind in robustness.KINDS:
        found[kind] = [
            estimators.distance(
                mean(estimators.contaminate(covs, kind, 0.3, np.random.default_rng(s))), clean
            )
            for s in range(5)
        ]
        print(f"SCP1, free mass, {kind}: required .035, measured {np.round(found[kind], 4)}")
    assert max(np.mean(shifts) for shifts in found.values()) <= 0.035
