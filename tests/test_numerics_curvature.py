"""Ritz values against closed-form and dense spectra, and residuals that cannot flatter."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse.linalg import LinearOperator, eigsh

from surefoot._numerics.curvature import (
    Hessian,
    hutchinson_trace,
    lanczos,
    largest_eigenpair,
    power_iteration,
)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_second_difference_matrix_has_its_closed_form_spectrum():
    """Eigenvalues 2 - 2 cos(j pi / (n + 1)), j = 1..n."""
    n = 40

    def product(v):
        w = 2 * v
        w[1:] -= v[:-1]
        w[:-1] -= v[1:]
        return w

    low, high = lanczos(product, n, n, generator=generator())
    assert low.value == pytest.approx(2 - 2 * np.cos(np.pi / (n + 1)), rel=1e-10)
    assert high.value == pytest.approx(2 - 2 * np.cos(n * np.pi / (n + 1)), rel=1e-12)
    assert high.steps == n


@given(seed=st.integers(0, 10_000), k=st.integers(1, 25))
@settings(max_examples=40, deadline=None)
def test_residual_is_the_distance_to_an_eigenvalue_and_ends_never_overshoot(seed, k):
    g = generator(seed)
    A = torch.randn(25, 25, dtype=torch.float64, generator=g)
    A = A + A.T
    spectrum = torch.linalg.eigvalsh(A)
    low, high = lanczos(lambda v: A @ v, 25, k, generator=g)
    slack = 1e-12 * float(spectrum.abs().max())
    assert low.value >= float(spectrum[0]) - slack
    assert high.value <= float(spectrum[-1]) + slack
    assert (low.high, high.low) == (low.value, high.value)
    for end in (low, high):
        assert float((spectrum - end.value).abs().min()) <= end.residual + slack


def test_more_products_only_improve_the_ends():
    A = torch.diag(torch.linspace(-1, 3, 200, dtype=torch.float64) ** 3)
    ends = [lanczos(lambda v: A @ v, 200, k, generator=generator()) for k in (2, 5, 10, 20, 40)]
    lows, highs = zip(*[(low.value, high.value) for low, high in ends], strict=True)
    assert list(lows) == sorted(lows, reverse=True)
    assert list(highs) == sorted(highs)
    assert highs[-1] == pytest.approx(27, rel=1e-6)


def test_a_null_space_has_no_spurious_negative_end():
    """J^T J of rank 5 in 300 dimensions: the smallest eigenvalue is 0, up to rounding."""
    J = torch.randn(5, 300, dtype=torch.float64, generator=generator(1))
    low, high = lanczos(lambda v: J.T @ (J @ v), 300, 30, generator=generator())
    assert abs(low.value) <= 1e-12 * high.value
    assert high.value == pytest.approx(float(torch.linalg.matrix_norm(J, 2)) ** 2, rel=1e-10)
    # The rank plus one of the null space exhausts what the start vector can reach.
    assert high.steps <= 7


def test_a_product_that_changes_from_call_to_call_cannot_look_converged():
    """Dropout in disguise: a full Krylov space leaves no recurrence residual, the measured one stays."""
    n = 30
    noise = generator(3)

    def product(v):
        return v + 0.1 * torch.randn(n, dtype=torch.float64, generator=noise)

    low, high = lanczos(product, n, n, generator=generator())
    assert min(low.residual, high.residual) > 0.05


def test_single_precision():
    A = torch.diag(torch.arange(1, 51, dtype=torch.float32))
    low, high = lanczos(lambda v: A @ v, 50, 50, generator=generator(), dtype=torch.float32)
    assert low.value == pytest.approx(1, rel=1e-4)
    assert high.value == pytest.approx(50, rel=1e-5)
    assert high.low * (1 - 1e-6) <= 50 <= high.high * (1 + 1e-6)


def test_a_problem_drawn_from_the_same_seed_is_no_blind_spot():
    """The normal vector of that seed is an eigenvector here: a start along it would see only 1."""
    u = torch.randn(20, dtype=torch.float64, generator=generator(0))
    u /= u.norm()
    low, high = lanczos(lambda v: v + 8 * (v - u * (u @ v)), 20, 5, generator=generator(0))
    assert (low.value, high.value) == (pytest.approx(1), pytest.approx(9))


def test_zero_operator():
    low, high = lanczos(torch.zeros_like, 7, 5, generator=generator())
    assert (low.value, high.value, low.residual, high.residual) == (0, 0, 0, 0)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_product_that_is_not_finite_is_refused(bad):
    calls = 0

    def product(v):
        nonlocal calls
        calls += 1
        return v.cumsum(0) if calls < 3 else torch.full_like(v, bad)

    with pytest.raises(RuntimeError, match="product 3 of the operator is not finite"):
        lanczos(product, 10, 8, generator=generator())


def test_too_few_products():
    with pytest.raises(ValueError, match="k must be a whole number of at least 1, got 0"):
        lanczos(torch.clone, 4, 0, generator=generator())


def test_the_same_seed_gives_the_same_bits_and_leaves_the_global_generator():
    A = torch.randn(20, 20, dtype=torch.float64, generator=generator(5))
    A = A + A.T
    before = torch.get_rng_state()
    first = lanczos(lambda v: A @ v, 20, 6, generator=generator(9))
    assert first == lanczos(lambda v: A @ v, 20, 6, generator=generator(9))
    assert torch.equal(before, torch.get_rng_state())


def symmetric(size, seed):
    A = torch.randn(size, size, dtype=torch.float64, generator=generator(seed))
    return A + A.T


def test_both_ends_agree_with_arpack():
    A = symmetric(60, 2)
    operator = LinearOperator((60, 60), matvec=lambda v: A.numpy() @ v, dtype=np.float64)
    reference = eigsh(operator, k=2, which="BE", return_eigenvectors=False)
    low, high = lanczos(lambda v: A @ v, 60, 60, generator=generator())
    np.testing.assert_allclose(sorted(reference), [low.value, high.value], rtol=1e-9)


@given(seed=st.integers(0, 10_000), k=st.integers(1, 40))
@settings(max_examples=40, deadline=None)
def test_power_iteration_is_from_below_and_near_the_modulus_of_an_eigenvalue(seed, k):
    A = symmetric(12, seed)
    moduli = torch.linalg.eigvalsh(A).abs()
    start = torch.randn(12, dtype=torch.float64, generator=generator(seed + 1))
    found = power_iteration(lambda v: A @ v, start, k)
    slack = 1e-12 * float(moduli.max())
    assert found.value <= float(moduli.max()) + slack
    assert float((moduli - found.value).abs().min()) <= found.residual + slack
    assert (found.low, found.high) == (found.value, found.value + found.residual)


def test_power_iteration_with_both_signs_equally_large():
    """Eigenvalues 3 and -3: the vector never converges, the modulus does at once."""
    A = torch.diag(torch.tensor([3.0, -3.0, 1.0, 0.5], dtype=torch.float64))
    found = power_iteration(lambda v: A @ v, torch.ones(4, dtype=torch.float64), 40)
    assert found.value == pytest.approx(3, rel=1e-12)
    assert found.residual <= 1e-10


def test_a_power_iteration_that_is_not_there_yet_says_so():
    A = torch.diag(torch.linspace(0.9, 1.0, 50, dtype=torch.float64))
    few = power_iteration(lambda v: A @ v, torch.ones(50, dtype=torch.float64), 2)
    assert few.value < 0.97
    assert few.residual > 0.02


def test_power_iteration_of_zero_and_of_nonsense():
    ones = torch.ones(3, dtype=torch.float64)
    assert power_iteration(torch.zeros_like, ones, 5).value == 0
    assert power_iteration(torch.clone, torch.zeros_like(ones), 5).value == 0
    with pytest.raises(RuntimeError, match="product 1 of the operator is not finite"):
        power_iteration(lambda v: v * float("nan"), ones, 5)
    with pytest.raises(ValueError, match="k must be a whole number of at least 1, got 0"):
        power_iteration(torch.clone, ones, 0)


def test_the_largest_eigenpair_is_one():
    A = symmetric(20, 4)
    values, vectors = torch.linalg.eigh(A)
    start = torch.randn(20, dtype=torch.float64, generator=generator(8))
    found, q = largest_eigenpair(lambda v: A @ v, start, 20)
    assert found.value == pytest.approx(float(values[-1]), rel=1e-12)
    assert abs(float(q @ vectors[:, -1])) == pytest.approx(1, abs=1e-10)


def test_a_trace_by_signs():
    """Exact on a diagonal; else within five standard errors, which the closed form confirms."""
    D = torch.arange(1, 6, dtype=torch.float64)
    assert hutchinson_trace(lambda v: D * v, 5, 3, generator=generator()) == (15.0, 0.0)
    A = symmetric(8, 5)
    mean, error = hutchinson_trace(lambda v: A @ v, 8, 2000, generator=generator(1))
    off = A - torch.diag(A.diagonal())
    assert error == pytest.approx(float((2 * (off**2).sum() / 2000) ** 0.5), rel=0.1)
    assert abs(mean - float(A.trace())) <= 5 * error
    assert np.isnan(hutchinson_trace(lambda v: A @ v, 8, 1, generator=generator())[1])
    with pytest.raises(ValueError, match="draws must be a whole number of at least 1, got 0"):
        hutchinson_trace(lambda v: v, 8, 0, generator=generator())


def test_a_hessian_is_the_dense_one_with_zeros_where_the_loss_is_flat():
    a = torch.tensor([0.3, -1.2], dtype=torch.float64, requires_grad=True)
    b = torch.tensor([[0.7]], dtype=torch.float64, requires_grad=True)
    linear = torch.ones(1, dtype=torch.float64, requires_grad=True)
    unused = torch.ones(2, dtype=torch.float64, requires_grad=True)

    def f(a, b):
        return (a**3).sum() * b.sum() + torch.exp(b).sum()

    hessian = Hessian(f(a, b) + linear.sum(), [a, b, linear, unused])
    dense = torch.autograd.functional.hessian(
        lambda flat: f(flat[:2], flat[2:3]), torch.cat([a, b.reshape(-1)]).detach()
    )
    rows = torch.stack([hessian(e) for e in torch.eye(hessian.size, dtype=torch.float64)])
    torch.testing.assert_close(rows[:3, :3], dense)
    assert not rows[3:].any()
    assert not rows[:, 3:].any()
    assert hessian.curved == [0, 1]
