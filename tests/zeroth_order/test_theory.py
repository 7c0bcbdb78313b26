"""Moments and exact laws: the library's own estimator on linear and quadratic losses against closed forms."""

import math

import numpy as np
import pytest
import torch

from surefoot.zeroth_order import LOZO, MeZO
from surefoot.zeroth_order.bounds import lozo_bound, lozo_contraction, lozo_moments


def linear(m, n):
    g = torch.randn(m, n, generator=torch.Generator().manual_seed(99), dtype=torch.float64)
    return g, torch.nn.Parameter(torch.zeros(m, n, dtype=torch.float64))


def squares(m, n, r, v_dist, draws, seed, scale="paper"):
    """||estimate||^2 / ||G||^2 over many draws on a linear loss, and the mean estimate with its error.

    A linear loss needs no forward: c = <G, D> exactly. The directions, their scale and the draw of V are
    the optimiser's own; that its step is this estimate is checked on the first twenty.
    """
    g, x = linear(m, n)
    optimizer = LOZO([x], 1.0, rank=r, nu=1, eps=0.5, v_dist=v_dist, scale=scale, seed=seed)
    directions, tensor = optimizer.engine.directions, optimizer.tensors[0]
    perturb, update = directions.scale_of(tensor)
    found = np.empty((draws, m, n))
    with torch.no_grad():
        for t in range(draws):
            directions.t = t
            directions.begin_period()
            d = directions.draw(tensor, 0) @ tensor.v.T
            found[t] = (perturb * (g * d).sum() * update * d).numpy()
    _, y = linear(m, n)
    stepped = LOZO([y], 1.0, rank=r, nu=1, eps=0.5, v_dist=v_dist, scale=scale, seed=seed)
    for t in range(20):
        with torch.no_grad():
            y.zero_()
        stepped.step(lambda: (g * y).sum())
        # The scalar is rounded to what the log holds.
        np.testing.assert_allclose(-y.detach().numpy(), found[t], rtol=1e-6, atol=1e-9)
    error = found.std(axis=0) / math.sqrt(draws)
    assert (np.abs(found.mean(axis=0) - g.numpy()) <= 4.5 * error).all()
    return np.square(found).sum(axis=(1, 2)) / float(g.square().sum())


@pytest.mark.parametrize(
    ("v_dist", "scale"),
    [
        ("gaussian", "paper"),
        ("orthogonal", "unit"),
        pytest.param("gaussian", "unit", marks=pytest.mark.acceptance),
        pytest.param("orthogonal", "paper", marks=pytest.mark.acceptance),
    ],
)
def test_first_and_second_moment(v_dist, scale):
    m, n, r = 6, 9, 2
    found = squares(m, n, r, v_dist, 3000, seed=1, scale=scale)
    spread = float(found.std()) / math.sqrt(len(found))
    assert float(found.mean()) == pytest.approx(lozo_moments(m, n, r, v_dist), abs=4.5 * spread)


@pytest.mark.acceptance
@pytest.mark.parametrize("v_dist", ["gaussian", "orthogonal"])
@pytest.mark.parametrize(("m", "n", "r"), [(6, 9, 1), (6, 9, 2), (12, 5, 4), (8, 8, 3)])
@pytest.mark.parametrize("scale", ["paper", "unit"])
def test_moments_to_two_percent(m, n, r, v_dist, scale, measured):
    found = squares(m, n, r, v_dist, 200_000, seed=m + n, scale=scale)
    kappa, expected = float(found.mean()), lozo_moments(m, n, r, v_dist)
    spread = float(found.std()) / math.sqrt(len(found))
    measured(
        f"8.1 kappa {m}x{n}, r {r}, {v_dist}, {scale}",
        f"{expected:.2f} +- 2 %",
        f"{kappa:.2f} (s.e. {spread:.2f})",
    )
    assert kappa == pytest.approx(expected, rel=0.02)


def test_known_values():
    assert lozo_moments(6, 9, 1) == 88
    assert lozo_moments(6, 9, 2) == 72
    assert lozo_moments(12, 5, 4) == 71
    assert lozo_moments(6, 9, 2, "orthogonal") == 63
    assert lozo_moments(4, 4, 4) == 18
    with pytest.raises(ValueError, match="r must be a whole number of at least 1, got 0"):
        lozo_moments(6, 9, 0)


def energies(m, n, r, nu, alpha, v_dist, steps, seeds):
    target = torch.randn(m, n, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    found = []
    for seed in range(seeds):
        x = torch.nn.Parameter(torch.zeros(m, n, dtype=torch.float64))
        optimizer = LOZO([x], alpha, rank=r, nu=nu, eps=1e-2, v_dist=v_dist, seed=seed)
        for _ in range(steps):
            optimizer.step(lambda x=x: (x - target).square().sum() / 2)
        found.append(float((x.detach() - target).square().sum()))
    return np.array(found) / float(target.square().sum())


@pytest.mark.parametrize(
    ("nu", "v_dist", "steps"),
    [
        (1, "gaussian", 12),
        pytest.param(1, "orthogonal", 12, marks=pytest.mark.acceptance),
        pytest.param(5, "orthogonal", 10, marks=pytest.mark.acceptance),
    ],
)
def test_exact_laws_on_a_quadratic(nu, v_dist, steps):
    m, n, r, alpha = 4, 6, 2, 0.02
    found = energies(m, n, r, nu, alpha, v_dist, steps, 80)
    expected = lozo_contraction(m, n, r, alpha, nu, v_dist) ** (steps // nu)
    spread = found.std(ddof=1) / math.sqrt(len(found))
    assert found.mean() == pytest.approx(expected, abs=4.5 * spread)


@pytest.mark.acceptance
@pytest.mark.parametrize(("nu", "steps"), [(1, 10), (10, 10)])
def test_exact_laws_to_two_percent(nu, steps, measured):
    m, n, r, alpha = 3, 5, 2, 0.02
    found = energies(m, n, r, nu, alpha, "orthogonal", steps, 20_000)
    expected = lozo_contraction(m, n, r, alpha, nu, "orthogonal") ** (steps // nu)
    measured(f"8.2 energy after {steps} steps, nu {nu}", expected, found.mean())
    assert found.mean() == pytest.approx(expected, rel=0.02)


def test_gaussian_v_with_long_periods_has_no_closed_law():
    with pytest.raises(ValueError, match="nu must be 1 for Gaussian V, got 5"):
        lozo_contraction(4, 6, 2, 0.01, 5)
    with pytest.raises(ValueError, match="nu must be"):
        lozo_contraction(4, 6, 2, 0.01, 0)


def test_mezo_second_moment():
    g = torch.randn(5, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    x = torch.nn.Parameter(torch.zeros(5, 4, dtype=torch.float64))
    optimizer = MeZO([x], 1.0, eps=0.5)
    squares = []
    for _ in range(1500):
        with torch.no_grad():
            x.zero_()
        optimizer.step(lambda: (g * x).sum())
        squares.append(float(x.detach().square().sum() / g.square().sum()))
    spread = np.std(squares) / math.sqrt(len(squares))
    assert np.mean(squares) == pytest.approx(22, abs=4.5 * spread)


class TestBound:
    def test_constants(self):
        found = lozo_bound([(8, 12)], 2, 5, 300, 1.0, 0.0, 3.0)
        assert found.rho == 6
        assert found.C == 8 * 12 + 12
        assert found.alpha_max == min(1 / 108, 1 / math.sqrt(36 * 25 + 2 * 5 * 108 * 6))
        assert found.value == 8 * 3.0 / (found.alpha * 300)
        unit = lozo_bound([(8, 12), (4, 4)], 2, 5, 300, 1.0, 0.0, 3.0, dense=7, scale="unit")
        assert unit.C == 96 + 16 + 7 + 12
        paper = lozo_bound([(8, 12), (4, 10)], [2, 3], 5, 300, 1.0, 0.0, 3.0, dense=7)
        assert paper.C == pytest.approx(3 * (96 / 2 + 40 / 3 + 7) + 12)

    def test_best_rate_balances_the_terms(self):
        found = lozo_bound([(8, 12)], 2, 5, 10**7, 1.0, 4.0, 3.0)
        assert found.alpha < found.alpha_max
        assert found.terms[0] == pytest.approx(found.terms[1])
        for factor in (0.7, 1.4):
            other = lozo_bound([(8, 12)], 2, 5, 10**7, 1.0, 4.0, 3.0, found.alpha * factor)
            assert other.value > found.value

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"alpha": 1.0}, "alpha must be at most alpha_max"),
            ({"T": 301}, "T must be a multiple of nu = 5, got 301"),
            ({"L": 0.0}, "L must be positive"),
            ({"r": [1, 2]}, "r must be one rank or 1"),
            ({"r": 0}, "r must be a whole number of at least 1"),
            ({"sigma2": -1.0}, "sigma2 must be at least 0"),
        ],
    )
    def test_bad_arguments(self, changes, message):
        arguments = {"shapes": [(8, 12)], "r": 2, "nu": 5, "T": 300, "L": 1.0}
        with pytest.raises(ValueError, match=message):
            lozo_bound(**(arguments | {"sigma2": 0.0, "delta0": 3.0} | changes))
