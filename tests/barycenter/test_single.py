"""float32 in, float32 out, and nothing lost on the way but the rounding of the inputs."""

import numpy as np
import pytest
import torch

from surefoot.barycenter import SUOTBarycenterLayer, mean_suot, suot_barycenter, suot_gaussian

KINDS = {"numpy": np.asarray, "torch": torch.as_tensor}


def spectra(seed, n, d, condition):
    """Random rotations of eigenvalues from 1/condition to 1."""
    rng = np.random.default_rng(seed)
    Q = np.linalg.qr(rng.standard_normal((n, d, d)))[0]
    A = (Q * np.geomspace(1 / condition, 1, d)) @ Q.swapaxes(-1, -2)
    return (A + A.swapaxes(-1, -2)) / 2


@pytest.mark.parametrize("kind", KINDS)
def test_the_result_is_that_of_float64_rounded(kind):
    covs = spectra(0, 7, 4, 50).astype(np.float32)
    means = np.random.default_rng(1).standard_normal((7, 4)).astype(np.float32)
    options = {"tau": 0.3, "mass": "free"}
    r = suot_barycenter(KINDS[kind](covs), means=KINDS[kind](means), **options)
    wide = suot_barycenter(covs.astype(np.float64), means=means.astype(np.float64), **options)
    for name in ("cov", "mean", "weights_", "outlier_score", "relaxed_covs"):
        found = np.asarray(getattr(r, name))
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, getattr(wide, name).astype(np.float32))
    assert isinstance(r.cov, torch.Tensor) == (kind == "torch")
    assert r.grad_norm <= 1e-8
    assert wide.cov.dtype == np.float64


@pytest.mark.parametrize("tau", [0.01, 1.0])
def test_little_is_lost_at_a_condition_number_of_ten_thousand(tau, measured):
    """An eigendecomposition in float32 loses 1e-5 and more here."""
    covs = spectra(2, 40, 10, 1e4)
    A, B = covs[:20], covs[20:]
    exact = suot_gaussian(A, B, tau).value
    single = suot_gaussian(A.astype(np.float32), B.astype(np.float32), tau).value
    lost = np.abs(single / exact - 1).max()
    measured(f"2.6 float32, condition 1e4, tau={tau}: Upsilon off by", "<= 2e-5", f"{lost:.1e}")
    assert lost <= 5e-6
    r = suot_barycenter(covs.astype(np.float32), tau=tau)
    assert r.converged
    np.testing.assert_allclose(r.cov, suot_barycenter(covs, tau=tau).cov, atol=1e-5)


def test_large_condition_numbers_are_warned_of_in_float32_alone():
    near, far = spectra(3, 3, 3, 9e4), spectra(3, 3, 3, 2e5)
    suot_barycenter(near.astype(np.float32), tau=1.0)
    suot_barycenter(far, tau=1.0)
    covs = np.concatenate([near, far]).astype(np.float32)
    with pytest.warns(UserWarning, match=r"covs\[3\] is float32 .* above 100000"):
        r = suot_barycenter(covs, tau=1.0)
    assert r.cov.dtype == np.float32
    with pytest.warns(UserWarning, match=r"B\[\.\.\.\] is float32"):
        suot_gaussian(near[0].astype(np.float32), far[0].astype(np.float32), 1.0)


def test_singular_inputs_in_float32_are_singular():
    """Their rounding must not pass for an eigenvalue, whose root would be an error of 1e-4."""
    X = np.random.default_rng(4).standard_normal((6, 5, 2)).astype(np.float32)
    A = X @ X.swapaxes(-1, -2)
    exact = X.astype(np.float64) @ X.astype(np.float64).swapaxes(-1, -2)
    B = spectra(5, 1, 5, 10)[0]
    with pytest.warns(UserWarning, match="taken for 0"):
        single = suot_gaussian(A, B.astype(np.float32), 3.0)
    np.testing.assert_allclose(single.value, suot_gaussian(exact, B, 3.0).value, rtol=2e-6)
    with pytest.warns(UserWarning, match="taken for 0"):
        r = suot_barycenter(A, tau=3.0)
    assert r.rank_deficient
    np.testing.assert_allclose(r.cov, suot_barycenter(exact, tau=3.0).cov, atol=1e-5)


@pytest.mark.parametrize("tau", [0.0, 0.4])
def test_a_common_null_space_in_float32(tau):
    small = spectra(6, 4, 2, 5)
    Q = np.linalg.qr(np.random.default_rng(7).standard_normal((5, 5)))[0][:, :2]
    covs = Q @ small @ Q.T
    with pytest.warns(UserWarning, match="float32"):
        r = suot_barycenter(((covs + covs.swapaxes(-1, -2)) / 2).astype(np.float32), tau=tau)
    assert r.rank_deficient
    assert np.linalg.matrix_rank(r.cov, tol=1e-6) == 2
    np.testing.assert_allclose(Q.T @ r.cov @ Q, suot_barycenter(small, tau=tau).cov, atol=1e-6)


def test_rounding_of_float32_is_no_bad_input_and_more_is():
    A = np.diag([2.0, 1.0]).astype(np.float32)
    A[0, 1] = 4e-6
    assert suot_gaussian(A, A, 1.0).value <= 1e-7
    with pytest.raises(ValueError, match="symmetric"):
        suot_gaussian(A.astype(np.float64), A, 1.0)
    A[0, 1] = 1e-3
    with pytest.raises(ValueError, match="symmetric"):
        suot_gaussian(A, A, 1.0)
    with pytest.warns(UserWarning, match="float32"):
        suot_gaussian(np.diag([1, -1e-6]).astype(np.float32), np.eye(2, dtype=np.float32), 1.0)
    with pytest.raises(ValueError, match="-0.001"):
        suot_gaussian(np.diag([1, -1e-3]).astype(np.float32), np.eye(2, dtype=np.float32), 1.0)


def test_float64_wins_where_both_are_given():
    A = spectra(8, 2, 3, 10)
    assert suot_gaussian(A[0].astype(np.float32), A[1], 1.0).value.dtype == np.float64
    assert mean_suot(A.astype(np.float32)).dtype == np.float32
    assert mean_suot(A.astype(int) + np.eye(3, dtype=int)).dtype == np.float64


def test_gradients_in_float32():
    A, B = (torch.tensor(M) for M in spectra(9, 2, 3, 20))
    wide = [M.clone().requires_grad_() for M in (A, B)]
    narrow = [M.float().requires_grad_() for M in (A, B)]
    for pair in (wide, narrow):
        suot_gaussian(*pair, 0.5).value.backward()
    for a, b in zip(wide, narrow, strict=True):
        assert b.grad.dtype == torch.float32
        torch.testing.assert_close(b.grad.double(), a.grad, atol=1e-5, rtol=1e-5)
    covs = torch.tensor(spectra(10, 4, 3, 20)).float()
    covs[0, 0, 1] += 1e-7
    covs.requires_grad_()
    SUOTBarycenterLayer(0.5)(covs).sum().backward()
    assert covs.grad.dtype == torch.float32
    assert torch.isfinite(covs.grad).all()
