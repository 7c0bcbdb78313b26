"""The promised curves against their closed forms and against what they must imply."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from surefoot.lora.bounds import asymm_floor, blocks_to, lora_smoothness, rac_bound
from surefoot.lora.errors import GuaranteeError


def test_the_formulas_as_written_in_the_paper():
    T = np.arange(1, 50)
    b = rac_bound(T, L=2.0, gamma=0.4, lam=0.25, gap0=3.0, mu=0.1)
    np.testing.assert_allclose(b.grad_norm2, 2 * 3 / (0.25 * 0.4 * T))
    np.testing.assert_allclose(b.gap, (1 - 0.4 * 0.1 * 0.25) ** T * 3)
    s = rac_bound(T, "sgd", L=2.0, gamma=0.4, lam=0.25, gap0=3.0, mu=0.1, lam_max=0.5, sigma2=7.0)
    np.testing.assert_allclose(s.grad_norm2, b.grad_norm2 + 0.4 * 2 * 7 * 0.5 / 0.25)
    np.testing.assert_allclose(s.gap, b.gap + 0.4 * 2 * 7 * 0.5 / (2 * 0.1 * 0.25))
    g, L, N = 0.01, 2.0, 10
    r = rac_bound(T, "rr", L=L, gamma=g, lam=0.25, gap0=3.0, mu=0.1, sigma2=7.0, local_steps=N)
    np.testing.assert_allclose(
        r.grad_norm2, 8 * 3 / (3 * g * N * 0.25 * T) + 4 / 3 * g**2 * L**2 * N * 7
    )
    np.testing.assert_allclose(
        r.gap, (1 - 0.75 * g * N * 0.1 * 0.25) ** T * 3 + 2 / 3 * g**2 * L**2 * N * 7 / 0.1
    )
    f = rac_bound(
        T, "fed", L=L, gamma=g, lam=0.25, gap0=3.0, mu=0.1, sigma2=7.0, zeta2=2.0, local_steps=N
    )
    np.testing.assert_allclose(
        f.grad_norm2 - r.grad_norm2, 4 / 3 * g**2 * L**2 * N * (N * 2.0) * np.ones(49)
    )


def test_gradient_descent_is_the_case_lam_one():
    b = rac_bound(30, L=1.0, gamma=1.0, lam=1.0, gap0=1.0, mu=0.1)
    assert b.gap == pytest.approx(0.9**30)
    assert rac_bound(0, L=1.0, gamma=1.0, lam=1.0, gap0=1.0).grad_norm2 == math.inf


@given(
    eps=st.floats(1e-6, 0.5),
    gamma=st.floats(0.01, 1),
    lam=st.floats(0.01, 1),
    mu=st.floats(0.01, 1),
)
def test_blocks_to_is_the_first_block_below(eps, gamma, lam, mu):
    T = blocks_to(eps, gamma=gamma, lam=lam, mu=mu)
    if gamma * lam * mu >= 1:
        assert T == 1
        return
    gaps = rac_bound(np.array([T - 1, T]), L=1.0, gamma=gamma, lam=lam, gap0=1.0, mu=mu).gap
    assert gaps[1] <= eps * (1 + 1e-9)
    assert T == 1 or gaps[0] >= eps * (1 - 1e-9)


def test_asymm_floor_is_the_least_squares_minimum():
    rng = np.random.default_rng(0)
    M, b, a = rng.uniform(1, 10, (3, 3)), rng.standard_normal((3, 3)), rng.standard_normal(3)
    best = 0.0
    for i in range(3):  # one free number a row: minimise q x^2 + p x by its own vertex
        q, p = (M[i] * a**2).sum(), (b[i] * a).sum()
        x = np.linspace(-5, 5, 400_001) - p / (2 * q)
        best += (q * x**2 + p * x).min()
    assert asymm_floor(M, b, a) == pytest.approx(best, rel=1e-9)


def test_lora_smoothness_at_the_one_by_one_example():
    # f = w^2/2, W0 = 0, A = B = 1: phi = a^2 b^2 / 2 has the Hessian [[1, 2], [2, 1]].
    assert np.linalg.eigvalsh([[1, 2], [2, 1]])[-1] == 3
    assert lora_smoothness(1.0, 1.0, 1.0, 1.0, 1.0) == 3


GOOD = {"L": 2.0, "gamma": 0.4, "lam": 0.25, "gap0": 3.0}


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"gamma": 0.6}, GuaranteeError, "gamma = 0.6 .*1/L = 0.5"),
        ({"law": "rr", "local_steps": 4, "gamma": 0.1}, GuaranteeError, r"1/\(2 L N\) = 0.0625"),
        ({"lam": 0.0}, ValueError, "lam must be positive"),
        ({"lam": 0.5, "lam_max": 0.2}, ValueError, "lam_max"),
        ({"gap0": -1.0}, ValueError, "gap0"),
        ({"mu": 3.0}, ValueError, "mu must be between 0 and L = 2"),
        ({"sigma2": 1.0}, ValueError, "sigma2 must be 0"),
        ({"zeta2": 1.0, "law": "sgd"}, ValueError, "zeta2"),
        ({"law": "adam"}, ValueError, "law must be one of"),
        ({"local_steps": 0, "law": "rr"}, ValueError, "local_steps"),
        ({"T": -1}, ValueError, "T must be"),
    ],
)
def test_bad_input(change, error, message, unchecked):
    with pytest.raises(error, match=message):
        rac_bound(**({"T": 3} | GOOD | change))


@pytest.mark.parametrize("eps", [0.0, 1.0, 2.0])
def test_blocks_to_wants_a_fraction(eps):
    with pytest.raises(ValueError, match="eps must be strictly between 0 and 1"):
        blocks_to(eps, gamma=1.0, lam=1.0, mu=0.1)
