"""How time and memory grow with the number and the size of the inputs."""

import time
import warnings

import numpy as np
import pytest
import torch
from sklearn.exceptions import ConvergenceWarning
from tests.barycenter.peak import peak_buffers

from surefoot.barycenter import suot_barycenter
from surefoot.barycenter._spectral import closed_forms as spectral


def spds(seed, n, d, low=0.1, high=1.0):
    rng = np.random.default_rng(seed)
    Q = np.linalg.qr(rng.standard_normal((n, d, d)))[0]
    A = (Q * rng.uniform(low, high, (n, d))[:, None]) @ Q.swapaxes(-1, -2)
    return (A + A.swapaxes(-1, -2)) / 2


@pytest.mark.parametrize("tau", [0.5, np.inf])
@pytest.mark.parametrize("mass", ["fixed", "free"])
def test_blocks_change_nothing(tau, mass, monkeypatch):
    covs, options = spds(1, 2 * 9, 3).reshape(2, 9, 3, 3), {"tau": tau, "mass": mass, "tol": 1e-10}
    whole = suot_barycenter(covs, **options)
    monkeypatch.setattr(spectral, "BLOCK", 8 * 9 * 2 * 4)
    assert len(spectral.blocks(torch.as_tensor(covs))) == 3
    parts = suot_barycenter(covs, **options)
    np.testing.assert_allclose(parts.cov, whole.cov, atol=1e-10)
    np.testing.assert_allclose(parts.relaxed_covs, whole.relaxed_covs, atol=1e-10)


def seconds_per_step(n, d):
    """CPU seconds of this thread; what a run costs beside its steps cancels in the difference."""
    covs, best = spds(0, n, d), {2: np.inf, 8: np.inf}
    options = {"tau": 0.1, "method": "eggd", "tol": 1e-15, "record": False, "optimality_gap": False}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        for _ in range(3):
            for steps, least in best.items():
                start = time.thread_time()
                suot_barycenter(covs, max_iter=steps, **options)
                best[steps] = min(least, time.thread_time() - start)
    return (best[8] - best[2]) / 6


@pytest.mark.acceptance
def test_a_step_costs_like_n_and_at_most_like_d_cubed(measured):
    """The exponent of n is 1; that of d stays below 3, since larger matrices are decomposed faster a flop."""
    base, more = seconds_per_step(64, 40), seconds_per_step(256, 40)
    small, large = seconds_per_step(16, 40), seconds_per_step(16, 160)
    in_n, in_d = (float(np.log(r) / np.log(4)) for r in (more / base, large / small))
    measured("8.11 exponent of n, n=64 to 256, d=40", ".85 to 1.15", f"{in_n:.2f}")
    measured("8.11 exponent of d, d=40 to 160, n=16", "1.5 to 3.2", f"{in_d:.2f}")
    assert 0.85 <= in_n <= 1.15
    assert 1.5 <= in_d <= 3.2


@pytest.mark.acceptance
@pytest.mark.parametrize(("n", "d", "mass"), [(1000, 100, "fixed"), (4000, 40, "free")])
def test_memory_is_at_most_four_buffers(n, d, mass, measured):
    found = peak_buffers(f"suot_barycenter(covs, tau=1.0, mass={mass!r})", n, d)
    measured(f"8.11 peak, n={n}, d={d}, {mass} mass", "<= 4 n d^2 doubles", f"{found:.2f}")
    assert found <= 4
