"""Ritz values against closed-form and dense spectra, and residuals that cannot flatter."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from surefoot._numerics.curvature import lanczos


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
    with pytest.raises(ValueError, match="k must be at least 1, got 0"):
        lanczos(torch.clone, 4, 0, generator=generator())


def test_the_same_seed_gives_the_same_bits_and_leaves_the_global_generator():
    A = torch.randn(20, 20, dtype=torch.float64, generator=generator(5))
    A = A + A.T
    before = torch.get_rng_state()
    first = lanczos(lambda v: A @ v, 20, 6, generator=generator(9))
    assert first == lanczos(lambda v: A @ v, 20, 6, generator=generator(9))
    assert torch.equal(before, torch.get_rng_state())
