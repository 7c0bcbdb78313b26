"""The barycenter beside POT and pyRiemann: same inputs, one thread, every residual at most 1e-8.

The residual is ||G||_B / sqrt(tr B) at tau = inf, whoever computed B. Best of three, interleaved. The
peers stop on rules of their own and end at other residuals than ours; so each is also compared with ours
stopped at the residual that this peer reached. SUREFOOT_BENCH=small shrinks all sizes: does it run?
"""

import os
import time
import warnings

import numpy as np
import pytest
import torch
from sklearn.exceptions import ConvergenceWarning
from tests.barycenter.peak import peak_buffers

from surefoot.barycenter import bures_barycenter, suot_barycenter
from surefoot.barycenter.experiments import estimators, robustness
from surefoot.barycenter.study import BarycenterConfig

ot = pytest.importorskip("ot")
mean_wasserstein = pytest.importorskip("pyriemann.geometry.mean").mean_wasserstein

SMALL = os.environ.get("SUREFOOT_BENCH") == "small"
SIZES = [(10, 5)] if SMALL else [(100, 22), (50, 50), (20, 100)]
ROUNDS = 1 if SMALL else 3
QUIET = {"optimality_gap": False, "record": False}
IMPORTS = """
import ot
from pyriemann.geometry.mean import mean_wasserstein
from surefoot.barycenter import suot_barycenter
"""
FLOOR = 1e-12
"""No residual below this is asked of ours: rounding would not let it stop."""


def spds(seed, n, d, low=0.1, high=1.0):
    rng = np.random.default_rng(seed)
    Q = np.linalg.qr(rng.standard_normal((n, d, d)))[0]
    A = (Q * rng.uniform(low, high, (n, d))[:, None]) @ Q.swapaxes(-1, -2)
    return (A + A.swapaxes(-1, -2)) / 2


def residual(B, covs):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return bures_barycenter(covs, init=np.asarray(B), max_iter=0, **QUIET).grad_norm


def best(*calls, rounds=ROUNDS):
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
    reached = {name: residual(call(), covs) for name, call in calls.items() if "= 1" not in name}
    for name in ("POT fixed point", "pyRiemann"):
        calls[f"ours, as {name}"] = lambda tol=reached[name]: bures_barycenter(
            covs, tol=max(tol, FLOOR), **QUIET
        )
    seconds = dict(zip(calls, best(*calls.values()), strict=True))
    ours = seconds["ours, tau = inf"]
    for name, spent in seconds.items():
        ends = f"residual {reached[name]:.1e}" if name in reached else ""
        print(f"n={n} d={d} {name:22} x{spent / ours:.2f} {ends}")
    for name in ("POT fixed point", "pyRiemann"):
        ratio = seconds[name] / seconds[f"ours, as {name}"]
        print(f"n={n} d={d} {name} over ours at the residual that it reached: x{ratio:.2f}")
    if SMALL:
        return
    assert seconds["POT fixed point"] >= 3 * ours
    assert seconds["pyRiemann"] >= ours
    assert seconds["ours, tau = 1"] <= seconds["POT fixed point"]


def test_gradient_descent_of_pot():
    """POT's descent takes the same unit steps as `eggd` does, with other square roots."""
    torch.set_num_threads(1)
    n, d = (10, 5) if SMALL else (200, 22)
    covs = spds(3, n, d)

    def theirs():
        return ot.gaussian.bures_barycenter_gradient_descent(covs, num_iter=1000, eps=1e-9)

    reached = residual(theirs(), covs)
    spent, ours, matched = best(
        theirs,
        lambda: bures_barycenter(covs, **QUIET),
        lambda: bures_barycenter(covs, tol=max(reached, FLOOR), **QUIET),
        rounds=1,
    )
    print(f"n={n} d={d} POT gradient_descent: residual {reached:.1e}, x{spent / ours:.1f} of ours;")
    print(
        f"n={n} d={d} x{spent / matched:.1f} of ours stopped at its residual (expected 50 to 120)"
    )
    assert SMALL or spent >= 50 * ours


@pytest.mark.parametrize("tau", [1.0, np.inf])
def test_peak_memory(tau):
    """Printed beside the peers' own: each in a process of its own, in sizes of the inputs."""
    n, d = (50, 20) if SMALL else (500, 100)
    calls = {
        "ours": f"suot_barycenter(covs, tau=float('{tau}'))",
        "ours, newton-schulz": f"suot_barycenter(covs, tau=float('{tau}'), sqrt='newton-schulz')",
    }
    if np.isinf(tau):
        calls["POT fixed point"] = "ot.gaussian.bures_barycenter_fixpoint(covs, eps=1e-9)"
        calls["pyRiemann"] = "mean_wasserstein(covs, tol=1e-8)"
    found = {name: peak_buffers(call, n, d, imports=IMPORTS) for name, call in calls.items()}
    for name, buffers in found.items():
        print(f"n={n} d={d} tau={tau} {name:20} peak {buffers:.1f} n d^2 doubles")
    assert SMALL or found["ours"] <= 4


@pytest.mark.xfail(
    reason="a bar not reached: 3.2 to 4.7 from run to run, a symmetrised copy of the inputs among them",
    strict=True,
)
def test_peak_memory_of_inputs_symmetric_to_rounding():
    """4 buffers of n d^2 doubles at most: the worst of eight runs, fixed and free mass."""
    found = [
        peak_buffers(f"suot_barycenter(covs, tau=1.0, mass={mass!r})", 600, 100, asymmetry=1e-12)
        for mass in ("fixed", "free")
        for _ in range(4)
    ]
    print(f"n=600 d=100, symmetric to rounding: required 4, measured {np.round(found, 2)}")
    assert max(found) <= 4


def test_two_thousand_matrices_in_seconds():
    torch.set_num_threads(1)
    covs = spds(1, 200 if SMALL else 2000, 22)
    (seconds,) = best(lambda: suot_barycenter(covs, tau=1.0, **QUIET), rounds=1)
    print(f"n={len(covs)} d=22 tau=1: {seconds:.2f} s")
    assert seconds < 10


def test_a_batch_is_not_slower_than_the_loop():
    torch.set_num_threads(1)
    count = 4 if SMALL else 64
    for n, d, least in ((10, 8, 1.0), (5, 3, 3.0)):
        covs = spds(2, count * n, d).reshape(count, n, d, d)
        loop, together = best(
            lambda covs=covs: [suot_barycenter(c, tau=1.0, **QUIET) for c in covs],
            lambda covs=covs: suot_barycenter(covs, tau=1.0, **QUIET),
        )
        print(f"{count} problems n={n} d={d}: the loop takes x{loop / together:.2f}")
        assert SMALL or loop >= least * together


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
