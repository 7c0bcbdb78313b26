"""The published outlier picture at other tau, and its mean, against numbers of the derivation's prototype."""

import numpy as np
import pytest

from surefoot.barycenter import bures_barycenter, suot_barycenter
from surefoot.barycenter.experiments.picture import OTHER, PRINTED, RIGHT

COVS = np.stack([PRINTED, OTHER])
OPTIMA = {
    0.01: (2.4304, 0.3235, 1.9333),
    0.1: (2.4310, 0.3218, 1.9390),
    1: (2.4356, 0.3088, 1.9836),
    10: (2.4465, 0.2787, 2.0897),
    1000: (2.4509, 0.2665, 2.1339),
    0: (2.4303, 0.3236, 1.9326),
}


@pytest.mark.parametrize("tau", OPTIMA)
def test_the_optimum_at_every_tau(tau):
    b11, b12, b22 = OPTIMA[tau]
    r = suot_barycenter(COVS, tau=tau, init="identity", tol=1e-10)
    np.testing.assert_allclose(r.cov, [[b11, b12], [b12, b22]], atol=6e-5)


def test_the_wasserstein_barycenter_is_the_printed_one():
    np.testing.assert_allclose(
        bures_barycenter(COVS).cov, [[2.4510, 0.2664], [0.2664, 2.1344]], atol=6e-5
    )


def test_the_mean_is_weighted_by_the_right_matrices():
    """Pitfall: a squared norm in place of a squared matrix gives their (8.9892, 3.0535)."""
    # The mixture's mean is (3, 3.12): 0.97 (3, 3) + 0.03 (3, 7).
    r = suot_barycenter(COVS, means=[[3, 3.12], [15, 3]], tau=0.01)
    np.testing.assert_allclose(r.mean, [8.9789, 2.2178], atol=1e-4)


def test_the_second_moment_of_the_mixture():
    """Pitfall: their v @ v.t() of a vector is a scalar, added to every entry."""
    parts = [
        (0.97, np.array([3.0, 3.0]), np.array([[2, -0.5], [-0.5, 2.5]])),
        (0.03, np.array([3.0, 7.0]), np.array([[0.5, 0.2], [0.2, 0.5]])),
    ]
    mean = sum(p * m for p, m, _ in parts)
    right = sum(p * (C + np.outer(m - mean, m - mean)) for p, m, C in parts)
    wrong = sum(p * (C + (m - mean) @ (m - mean)) for p, m, C in parts)
    np.testing.assert_allclose(right, RIGHT, atol=1e-12)
    np.testing.assert_allclose(wrong, PRINTED, atol=1e-12)
