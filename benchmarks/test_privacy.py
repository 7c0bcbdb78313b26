"""The heuristic against dp-accounting's mixture of Gaussians, at the same epsilon, in one process."""

import math
import time
import tracemalloc

import numpy as np
import pytest
from scipy.stats import binom

from surefoot.privacy import calibrate, last_iterate
from surefoot.privacy.calibration import _heuristic_sigma

SETTINGS = [(1.0, 0.1, 100), (0.5, 0.05, 200), (2.0, 0.1, 1000), (1.0, 0.01, 1000)]


def by_dp_accounting(sigma, q, steps, delta):
    """Binomial weights down to e^-60, as an expert would write it today."""
    from dp_accounting.pld import privacy_loss_distribution as pld

    k = np.arange(steps + 1)
    log_w = binom.logpmf(k, steps, q)
    keep = log_w > -60
    weights = np.exp(log_w[keep])
    found = pld.from_mixture_gaussian_mechanism(
        standard_deviation=sigma * math.sqrt(steps),
        sensitivities=k[keep].astype(float),
        sampling_probs=weights / weights.sum(),
        value_discretization_interval=1e-4,
    )
    return found.get_epsilon_for_delta(delta)


@pytest.mark.parametrize(("sigma", "q", "steps"), SETTINGS)
def test_speed_at_equal_epsilon(sigma, q, steps, capsys):
    delta = 1e-5
    last_iterate(sigma, q, steps).epsilon(delta)
    started = time.perf_counter()
    theirs = by_dp_accounting(sigma, q, steps, delta)
    peer = time.perf_counter() - started
    times = []
    for _ in range(20):
        started = time.perf_counter()
        ours = last_iterate(sigma, q, steps).epsilon(delta).value
        times.append(time.perf_counter() - started)
    mine = float(np.median(times))
    with capsys.disabled():
        print(
            f"\nsigma {sigma}, q {q}, T {steps}: {mine * 1e3:.1f} ms against {peer:.1f} s, "
            f"ratio {peer / mine:.0f}, epsilon {ours:.6f} and {theirs:.6f}"
        )
    assert abs(ours - theirs) <= 1e-4
    assert peer / mine >= 300


def test_a_billion_steps(capsys):
    last_iterate(2.0, 1e-4, 10**6).epsilon(1e-6)
    started = time.perf_counter()
    value = last_iterate(2.0, 1e-4, 10**9).epsilon(1e-6).value
    took = time.perf_counter() - started
    tracemalloc.start()
    last_iterate(2.0, 1e-4, 10**9).epsilon(1e-6)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    with capsys.disabled():
        print(f"\nT = 1e9: epsilon {value:.6f} in {took * 1e3:.0f} ms, peak {peak / 1e6:.1f} MB")
    assert peak < 50e6


def test_cost_grows_as_the_square_root(capsys):
    def seconds(steps):
        times = []
        for _ in range(5):
            started = time.perf_counter()
            last_iterate(1.0, 0.01, steps).epsilon(1e-6)
            times.append(time.perf_counter() - started)
        return min(times)

    small, large = seconds(10**6), seconds(10**8)
    with capsys.disabled():
        print(f"\nhundredfold T costs {large / small:.1f} times as much (sqrt: 10)")
    assert large / small < 20


def test_calibration(capsys):
    calibrate(1.0, 1e-5, 0.1, 10, by="heuristic")
    rows = []
    for delta, q, steps, target in ((1e-5, 0.08, 2000, 8), (1e-6, 0.005, 10000, 1)):
        started = time.perf_counter()
        _heuristic_sigma(target, delta, q, steps)
        search = time.perf_counter() - started
        started = time.perf_counter()
        calibrate(target, delta, q, steps, by="heuristic")
        rows.append((search, time.perf_counter() - started))
    with capsys.disabled():
        for search, whole in rows:
            print(f"\ncalibration: root search {search:.3f} s, with the proven value {whole:.3f} s")
