"""Newton-Schulz against eigendecompositions: roots, closed forms, whole runs, and what it refuses."""

import math

import numpy as np
import pytest
import torch

from surefoot.barycenter import suot_barycenter, suot_gaussian
from surefoot.barycenter._spectral.closed_forms import Inputs
from surefoot.barycenter._spectral.matmul import MatmulCoupling, MatmulInputs, roots


def spectra(seed, n, d, condition):
    """Random rotations of eigenvalues from 1/condition to 1."""
    rng = np.random.default_rng(seed)
    Q = np.linalg.qr(rng.standard_normal((n, d, d)))[0]
    A = (Q * np.geomspace(1 / condition, 1, d)) @ Q.swapaxes(-1, -2)
    return (A + A.swapaxes(-1, -2)) / 2


@pytest.mark.parametrize("condition", [1.0, 1e2, 1e4, 1e6])
def test_roots_are_those_of_eigh(condition, measured):
    M = torch.tensor(spectra(0, 20, 12, condition)) * 37
    Y, Z, there = roots(M)
    assert there.all()
    w, V = torch.linalg.eigh(M)
    exact = (V * w.sqrt()[:, None]) @ V.mT, (V / w.sqrt()[:, None]) @ V.mT
    off = [float((a - b).abs().max() / b.abs().max()) for a, b in zip((Y, Z), exact, strict=True)]
    measured(f"8.12 Newton-Schulz against eigh, condition {condition:g}", "1e-8", f"{max(off):.1e}")
    assert max(off) <= 1e-8


def test_what_has_no_root_does_not_converge():
    bad = torch.stack(
        [torch.diag(torch.tensor(v).double()) for v in ([1, -0.1], [1, 0], [1, 1e-9])]
    )
    assert not roots(bad)[2].any()


@pytest.mark.parametrize("tau", [1e-6, 1e-2, 1.0, 1e2, 1e5, 1e8, math.inf])
def test_closed_forms_are_those_of_eigh(tau):
    A, B = torch.tensor(spectra(1, 8, 6, 100)), torch.tensor(spectra(2, 1, 6, 30))
    t, lam = torch.tensor(tau).double(), torch.arange(1, 9).double() / 36
    one, other = Inputs.of(A, t).evaluate(B), MatmulInputs.of(A, t).evaluate(B)
    assert isinstance(other, MatmulCoupling)
    # The absolute error of either value is a few roundings of tr B.
    torch.testing.assert_close(other.upsilon, one.upsilon, atol=1e-13, rtol=0)
    for found, exact in (
        (other.maps(), one.maps()),
        (other.relaxed(), one.relaxed()),
        (other.mean_map(lam), one.mean_map(lam)),
    ):
        torch.testing.assert_close(found, exact, atol=1e-10, rtol=1e-10)


def test_several_tau_at_once():
    """Values by the series and by the logdet in one call."""
    A, B = torch.tensor(spectra(3, 5, 4, 20)), torch.tensor(spectra(4, 1, 4, 20))
    t = torch.tensor([1e-3, 1.0, 30.0, 1e3, 1e6]).double()
    found = MatmulInputs.of(A, t).evaluate(B).upsilon.numpy()
    np.testing.assert_allclose(found, suot_gaussian(A, B[0], t).upsilon, atol=1e-13)


def test_equal_matrices_are_no_exception():
    eye = torch.eye(3, dtype=torch.float64)[None]
    coupling = MatmulInputs.of(eye, torch.tensor(0.5).double()).evaluate(eye)
    torch.testing.assert_close(coupling.maps(), eye)
    assert float(coupling.upsilon) <= 1e-14


RUNS = [
    *(("bb", tau) for tau in (1e-3, 0.1, 1.0, 100.0, math.inf)),
    *((method, tau) for method in ("eggd", "hybrid", "newton") for tau in (1.0, math.inf)),
]


@pytest.mark.parametrize(("method", "tau"), RUNS)
def test_whole_runs_agree(method, tau):
    covs = spectra(5, 10, 5, 50)
    options = {"tau": tau, "method": method, "tol": 1e-10}
    if method == "newton" and tau > 1:
        options["tol"] = 1e-7
    eigh = suot_barycenter(covs, **options)
    matmul = suot_barycenter(covs, sqrt="newton-schulz", **options)
    assert matmul.converged
    np.testing.assert_allclose(matmul.cov, eigh.cov, atol=1e-8)
    np.testing.assert_allclose(matmul.outlier_score, eigh.outlier_score, atol=1e-8)
    np.testing.assert_allclose(matmul.relaxed_covs, eigh.relaxed_covs, atol=1e-8)
    assert abs(matmul.n_iter - eigh.n_iter) <= 2
    assert [c.verdict for c in matmul.certificates()] == [c.verdict for c in eigh.certificates()]


def test_batches_means_and_free_mass_agree():
    rng = np.random.default_rng(6)
    covs, a = spectra(7, 18, 3, 30).reshape(3, 6, 3, 3), rng.standard_normal((3, 6, 3))
    options = {"means": a, "tau": [0.2, 1.0, 5.0], "mass": "free", "tol": 1e-10}
    eigh = suot_barycenter(covs, **options)
    matmul = suot_barycenter(covs, sqrt="newton-schulz", **options)
    for name in ("cov", "mean", "weights_"):
        np.testing.assert_allclose(getattr(matmul, name), getattr(eigh, name), atol=1e-8)


def test_singular_and_nearly_singular_inputs_fall_back_and_say_so():
    covs = spectra(8, 4, 3, 10)
    flat = np.concatenate([covs, np.diag([1.0, 1.0, 0.0])[None]])
    with pytest.warns(UserWarning, match="full rank: eigh is used"):
        r = suot_barycenter(flat, tau=0.5, sqrt="newton-schulz")
    np.testing.assert_array_equal(r.cov, suot_barycenter(flat, tau=0.5).cov)
    near = np.concatenate([covs, np.diag([1.0, 1.0, 1e-9])[None]])
    with pytest.warns(UserWarning, match="does not converge .* computed by eigh"):
        r = suot_barycenter(near, tau=0.5, sqrt="newton-schulz")
    np.testing.assert_allclose(r.cov, suot_barycenter(near, tau=0.5).cov, atol=1e-8)
    with pytest.raises(ValueError, match="sqrt must be one of"):
        suot_barycenter(covs, sqrt="svd")
