"""The barycenter beside POT and pyRiemann: same inputs, one thread, every residual at most 1e-8.

The residual is ||G||_B / sqrt(tr B) at tau = inf, whoever computed B. Medians of ten rounds, interleaved.
The peers stop on rules of their own and end at other residuals than ours; so each is also compared with
ours stopped at the residual that this peer reached. `make bench` sets the threads of every BLAS to one.
SUREFOOT_BENCH=small shrinks all sizes: does it run?
"""

import os
import time
import unittest.mock
import warnings

import numpy as np
import pytest
import torch
from sklearn.exceptions import ConvergenceWarning
from tests.barycenter.peak import peak_buffers

from surefoot.barycenter import bures_barycenter, suot_barycenter
from surefoot.barycenter._solver import solve as solving
from surefoot.barycenter.experiments import estimators, robustness
from surefoot.barycenter.study import BarycenterConfig

ot = pytest.importorskip("ot")
mean_wasserstein = pytest.importorskip("pyriemann.geometry.mean").mean_wasserstein

SMALL = os.environ.get("SUREFOOT_BENCH") == "small"
# (n, d): pyRiemann over ours, quiet at 1e-8, quiet at its residual, by default at 1e-8, by default at its
# residual; POT over ours.
TARGETS = {
    (10, 5): (1.5, 1.6, 1.35, 1.3, 2.5),
    (40, 8): (2.2, 2.1, 1.7, 1.6, 6.0),
    (100, 10): (2.6, 2.6, 1.9, 1.85, 9.0),
    (100, 22): (3.0, 2.8, 2.1, 2.0, 9.0),
    (50, 50): (2.4, 2.2, 1.75, 1.6, 9.0),
    (20, 100): (2.2, 1.9, 1.55, 1.3, 9.0),
    (500, 8): (2.7, 2.6, 1.9, 1.8, 9.0),
    (2000, 22): (3.0, 2.7, 2.2, 2.0, 9.0),
    (50, 200): (2.1, 1.55, 1.35, 1.1, 9.0),
}
SIZES = [(10, 5)] if SMALL else list(TARGETS)
ROUNDS = 1 if SMALL else 10
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


def medians(*calls, rounds=ROUNDS, repeats=1):
    """Median CPU seconds of this thread for each, rounds interleaved: the machine may be busy."""
    found = [[] for _ in calls]
    for _ in range(rounds):
        for seconds, call in zip(found, calls, strict=True):
            for _ in range(repeats):
                start = time.thread_time()
                call()
                seconds.append(time.thread_time() - start)
    return [float(np.median(seconds)) for seconds in found]


@pytest.mark.parametrize(("n", "d"), SIZES)
def test_the_wasserstein_barycenter_against_the_peers(n, d):
    covs = spds(0, n, d)

    def theirs():
        return mean_wasserstein(covs, tol=1e-8, maxiter=1000)

    def pot():
        return ot.gaussian.bures_barycenter_fixpoint(covs, eps=1e-9, num_iter=1000)

    same = max(residual(theirs(), covs), FLOOR)
    repeats = 5 if n * d * d < 4000 else 1
    peer, *ours = medians(
        theirs,
        lambda: bures_barycenter(covs, **QUIET),
        lambda: bures_barycenter(covs, tol=same, **QUIET),
        lambda: bures_barycenter(covs),
        lambda: bures_barycenter(covs, tol=same),
        repeats=repeats,
    )
    spent, quiet = medians(
        pot, lambda: bures_barycenter(covs, **QUIET), rounds=min(ROUNDS, 3), repeats=repeats
    )
    found = [*(peer / x for x in ours), spent / quiet]
    for what, ratio, least in zip(
        ("quiet 1e-8", "quiet, its residual", "defaults 1e-8", "defaults, its residual", "POT, quiet"),
        found, TARGETS[n, d], strict=True,
    ):  # fmt: skip
        print(f"n={n} d={d} {what:22} peer over ours x{ratio:.2f} (required {least})")
    assert SMALL or all(a >= b for a, b in zip(found, TARGETS[n, d], strict=True))


@pytest.mark.parametrize(
    ("n", "d"), [(10, 5)] if SMALL else [(10, 5), (100, 22), (50, 50), (20, 100)]
)
@pytest.mark.parametrize("record", [False, True])
def test_a_finite_price_against_an_eigendecomposition_a_step(n, d, record):
    """The path of before, which single inputs in other dtypes and with other methods still take."""
    covs = spds(0, n, d)
    options = {"tau": 1.0, "record": record, "optimality_gap": record}

    def before():
        with unittest.mock.patch.object(solving, "suits", return_value=False):
            suot_barycenter(covs, **options)

    old, new = medians(before, lambda: suot_barycenter(covs, **options))
    print(f"n={n} d={d} tau=1 record={record}: an eigendecomposition a step takes x{old / new:.2f}")
    assert SMALL or old >= new


@pytest.mark.parametrize(("n", "d"), SIZES)
def test_time_over_the_floor(n, d):
    """An eigendecomposition an input and 27 products, as four steps need, are what cannot be done without."""
    covs = spds(0, n, d)
    out = np.empty_like(covs)
    ours, eigh, product = medians(
        lambda: bures_barycenter(covs, **QUIET),
        lambda: torch.linalg.eigh(torch.from_numpy(covs)),
        lambda: np.matmul(covs, covs, out=out),
    )
    floor = eigh + 27 * product
    print(f"n={n} d={d} quiet 1e-8 over the floor x{ours / floor:.1f}, of which eigh {eigh / ours:.2f}, "
          f"products {27 * product / ours:.2f}, the rest {1 - floor / ours:.2f}")  # fmt: skip


def test_gradient_descent_of_pot():
    """POT's descent takes the same unit steps as `eggd` does, with other square roots."""
    torch.set_num_threads(1)
    n, d = (10, 5) if SMALL else (200, 22)
    covs = spds(3, n, d)

    def theirs():
        return ot.gaussian.bures_barycenter_gradient_descent(covs, num_iter=1000, eps=1e-9)

    reached = residual(theirs(), covs)
    spent, ours, matched = medians(
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
    assert SMALL or found["ours"] <= 3.3


def test_peak_memory_of_inputs_symmetric_to_rounding():
    """3.3 buffers of n d^2 doubles at most: the worst of eight runs, fixed and free mass."""
    found = [
        peak_buffers(f"suot_barycenter(covs, tau=1.0, mass={mass!r})", 600, 100, asymmetry=1e-12)
        for mass in ("fixed", "free")
        for _ in range(4)
    ]
    print(f"n=600 d=100, symmetric to rounding: required 3.3, measured {np.round(found, 2)}")
    assert max(found) <= 3.3


def test_two_thousand_matrices_in_seconds():
    torch.set_num_threads(1)
    covs = spds(1, 200 if SMALL else 2000, 22)
    (seconds,) = medians(lambda: suot_barycenter(covs, tau=1.0, **QUIET), rounds=1)
    print(f"n={len(covs)} d=22 tau=1: {seconds:.2f} s")
    assert seconds < 10


def test_a_batch_is_not_slower_than_the_loop():
    torch.set_num_threads(1)
    count = 4 if SMALL else 64
    for n, d, least in ((10, 8, 1.0), (5, 3, 3.0)):
        covs = spds(2, count * n, d).reshape(count, n, d, d)
        loop, together = medians(
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
