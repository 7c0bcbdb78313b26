"""Probes against dense linear algebra, brute force, enumeration and high-precision roots."""

import itertools
from math import comb

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from surefoot._numerics.curvature import lanczos
from surefoot.nesterov._probe.noise import (
    NoiseSample,
    a_priori_noise,
    batch_variance,
    fit_noise,
    noise_from_batches,
)
from surefoot.nesterov._probe.projection import project
from surefoot.nesterov.probe import Landscape


def small_network(seed=0, width=24):
    """P = 8 * 24 + 24 + 24 * 3 + 3 = 291 parameters."""
    generator = torch.Generator().manual_seed(seed)
    model = nn.Sequential(nn.Linear(8, width), nn.Tanh(), nn.Linear(width, 3)).double()
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=generator, dtype=p.dtype) / 2)
    x = torch.randn(20, 8, generator=generator, dtype=torch.float64)
    y = torch.randn(20, 3, generator=generator, dtype=torch.float64)
    return model, (x, y)


def dense_hessian(model, data):
    names = [n for n, _ in model.named_parameters()]
    sizes = [p.numel() for p in model.parameters()]
    shapes = [p.shape for p in model.parameters()]
    flat = torch.cat([p.detach().reshape(-1) for p in model.parameters()])

    def f(t):
        parts = [a.reshape(s) for a, s in zip(t.split(sizes), shapes, strict=True)]
        out = torch.func.functional_call(model, dict(zip(names, parts, strict=True)), (data[0],))
        return nn.functional.mse_loss(out, data[1])

    return torch.func.jacrev(torch.func.jacrev(f))(flat)


@pytest.mark.parametrize("chunk", [None, 7])
def test_ends_of_the_spectrum_against_dense(chunk):
    model, data = small_network()
    eigenvalues = torch.linalg.eigvalsh(dense_hessian(model, data))
    landscape = Landscape(model, nn.functional.mse_loss, data, chunk=chunk)
    top = landscape.smoothness(60)
    assert top.value == pytest.approx(float(eigenvalues[-1]), rel=1e-6)
    assert top.low * (1 - 1e-12) <= float(eigenvalues[-1]) <= top.high * (1 + 1e-12)
    bottom = landscape.curvature_min(60)
    assert bottom.value == pytest.approx(float(eigenvalues[0]), rel=1e-3)
    assert bottom.low - 1e-12 <= float(eigenvalues[0]) <= bottom.high + 1e-12


@given(seed=st.integers(0, 1000), k=st.integers(1, 12))
@settings(max_examples=30)
def test_ritz_values_stay_inside_and_residuals_are_honest(seed, k):
    generator = torch.Generator().manual_seed(seed)
    A = torch.randn(12, 12, dtype=torch.float64, generator=generator)
    A = A + A.T
    eigenvalues = torch.linalg.eigvalsh(A)
    low, high = lanczos(lambda v: A @ v, 12, k, generator=generator)
    for end in (low, high):
        assert eigenvalues[0] - 1e-9 <= end.value <= eigenvalues[-1] + 1e-9
        assert float((eigenvalues - end.value).abs().min()) <= end.residual + 1e-9
    if k == 12:
        assert high.value == pytest.approx(float(eigenvalues[-1]), rel=1e-9)


def test_lanczos_stops_when_the_krylov_space_is_exhausted():
    generator = torch.Generator().manual_seed(0)
    low, high = lanczos(lambda v: 3 * v, 50, 30, generator=generator)
    assert high.steps <= 2
    assert low.value == pytest.approx(3.0)
    assert high.value == pytest.approx(3.0)


def test_parameter_subset_and_frozen_parameters():
    model, data = small_network()
    model[0].weight.requires_grad_(False)
    landscape = Landscape(model, nn.functional.mse_loss, data)
    assert len(landscape.gradient()) == 291 - 192
    only = Landscape(model, nn.functional.mse_loss, data, parameters=model[2].parameters())
    # In its last layer the network is linear: the Hessian is that of least squares.
    hidden = torch.tanh(model[0](data[0])).detach()
    features = torch.cat([hidden, torch.ones(20, 1)], dim=1)
    expected = 2 * torch.linalg.eigvalsh(features.T @ features / 60)[-1]
    assert only.smoothness(40).value == pytest.approx(float(expected), rel=1e-9)


def test_gradient_and_noise_against_a_loop():
    model, data = small_network()
    rows = []
    for x, y in zip(*data, strict=True):
        loss = nn.functional.mse_loss(model(x[None]), y[None])
        grads = torch.autograd.grad(loss, list(model.parameters()))
        rows.append(torch.cat([g.reshape(-1) for g in grads]))
    rows = torch.stack(rows)
    mean = rows.mean(dim=0)
    V1 = float(((rows - mean) ** 2).sum(dim=1).mean())
    for chunk in (None, 6):
        landscape = Landscape(model, nn.functional.mse_loss, data, chunk=chunk)
        torch.testing.assert_close(landscape.gradient(), mean, rtol=1e-10, atol=1e-12)
        sample = landscape.noise(4)
        assert pytest.approx(V1, rel=1e-10) == sample.V1
        assert pytest.approx(V1 / 4, rel=1e-10) == sample.V
        assert sample.grad_sq == pytest.approx(float(mean @ mean), rel=1e-10)
    assert all(p.grad is None for p in model.parameters())


def test_variance_without_replacement_by_enumeration():
    generator = np.random.default_rng(0)
    gradients = generator.standard_normal((8, 5))
    mean = gradients.mean(axis=0)
    V1 = ((gradients - mean) ** 2).sum(axis=1).mean()
    batches = [gradients[list(b)].mean(axis=0) for b in itertools.combinations(range(8), 3)]
    assert len(batches) == comb(8, 3)
    exact = np.mean([((b - mean) ** 2).sum() for b in batches])
    assert batch_variance(V1, 3, 8, replacement=False) == pytest.approx(exact, rel=1e-12)
    draws = itertools.product(range(8), repeat=2)
    pairs = np.mean([((gradients[list(d)].mean(axis=0) - mean) ** 2).sum() for d in draws])
    assert batch_variance(V1, 2, 8, replacement=True) == pytest.approx(pairs, rel=1e-12)
    assert batch_variance(V1, 8, 8, replacement=False) == 0


def test_noise_from_batches_is_unbiased():
    generator = torch.Generator().manual_seed(0)
    truth = torch.tensor([1.0, 0.0, 2.0], dtype=torch.float64)
    found = [
        noise_from_batches(truth + torch.randn(8, 3, dtype=torch.float64, generator=generator), 4)
        for _ in range(4000)
    ]
    V, G = np.array([s.V for s in found]), np.array([s.grad_sq for s in found])
    assert abs(V.mean() - 3) <= 4 * V.std() / np.sqrt(4000)
    assert abs(G.mean() - 5) <= 4 * G.std() / np.sqrt(4000)
    with pytest.raises(ValueError, match="at least 8 batch gradients are needed, got 7"):
        noise_from_batches(torch.zeros(7, 3), 4)


positive = st.floats(1e-8, 1e6)
pairs = st.lists(st.tuples(positive, st.just(0.0) | positive), min_size=1, max_size=12)


@given(samples=pairs)
@settings(max_examples=60)
def test_envelope_covers_every_sample_and_touches_one(samples):
    fit = fit_noise(samples, "envelope")
    V, G = np.array(samples).T
    bound = fit.sigma_add**2 + fit.sigma_mult**2 * G
    assert (bound >= V * (1 - 1e-9)).all()
    assert (V / bound).max() == pytest.approx(1, rel=1e-6)


def test_fits_recover_an_exact_law():
    G = np.geomspace(1e-6, 1e2, 9)
    samples = [(0.3 + 5 * g, g) for g in G]
    for kind in ("envelope", "least_squares"):
        fit = fit_noise(samples, kind)
        assert fit.sigma_add**2 == pytest.approx(0.3, rel=1e-6)
        assert fit.sigma_mult**2 == pytest.approx(5, rel=1e-6)
        assert fit.r2 == pytest.approx(1, abs=1e-9)
    assert fit_noise(samples, "envelope").certifying
    assert not fit_noise(samples[:4], "envelope").certifying
    assert not fit_noise(samples, "least_squares").certifying


def test_a_priori_noise_bounds_a_least_squares_problem():
    """Interpolating least squares: the measured ratio never exceeds (L_max/mu - 1)/B."""
    generator = np.random.default_rng(0)
    A = generator.standard_normal((6, 12))
    L_max = (A**2).sum(axis=1).max()
    mu = np.linalg.eigvalsh(A @ A.T / 6)[0]
    for _ in range(50):
        w = generator.standard_normal(12)
        rows = A * (A @ w)[:, None]
        mean = rows.mean(axis=0)
        ratio = ((rows - mean) ** 2).sum(axis=1).mean() / (mean @ mean)
        assert ratio <= a_priori_noise(L_max, mu, 1) * (1 + 1e-12)


def on_circle(t):
    return torch.stack([t.norm() - 1])


def on_ellipse(t):
    return torch.stack([(t[0] / 2) ** 2 + t[1] ** 2 - 1])


def on_hyperbola(t):
    return torch.stack([t[0] * t[1] - 1])


def root(slope, around):
    """The root of the derivative of the squared distance along a curve, to 30 digits."""
    with mpmath.workdps(30):
        return mpmath.findroot(slope, around)


def closest_on_ellipse(a, b):
    s = root(
        lambda s: (
            -2 * mpmath.sin(s) * (2 * mpmath.cos(s) - a) + mpmath.cos(s) * (mpmath.sin(s) - b)
        ),
        0.6,
    )
    return [float(2 * mpmath.cos(s)), float(mpmath.sin(s))]


def closest_on_hyperbola(a, b):
    s = root(lambda s: (s - a) - (1 / s - b) / s**2, 1.1)
    return [float(s), float(1 / s)]


@pytest.mark.parametrize(
    ("residual", "y", "start", "expected"),
    [
        (on_circle, [2.0, 1.0], [0.8, 0.9], [2 / 5**0.5, 1 / 5**0.5]),
        (on_ellipse, [2.5, 1.5], [1.5, 0.8], closest_on_ellipse(2.5, 1.5)),
        (on_hyperbola, [1.6, 1.4], [0.9, 1.2], closest_on_hyperbola(1.6, 1.4)),
    ],
)
def test_projection_against_high_precision(residual, y, start, expected):
    found = project(
        residual, torch.tensor(y, dtype=torch.float64), torch.tensor(start, dtype=torch.float64)
    )
    assert found.ok
    assert float((found.point - torch.tensor(expected, dtype=torch.float64)).norm()) <= 1e-8


def test_projection_reports_failure():
    """x^2 + 1 = 0 has no solution: whatever comes out must not be ok."""
    found = project(
        lambda t: torch.stack([t[0] ** 2 + 1]),
        torch.tensor([2.0], dtype=torch.float64),
        torch.tensor([1.0], dtype=torch.float64),
    )
    assert not found.ok
    assert found.residual > 1e-6


def test_projection_of_a_network_is_no_farther_than_the_final_point():
    generator = torch.Generator().manual_seed(0)
    model, _ = small_network(width=40)
    x = torch.randn(4, 8, generator=generator, dtype=torch.float64)
    y = torch.randn(4, 3, generator=generator, dtype=torch.float64)
    landscape = Landscape(model, nn.functional.mse_loss, (x, y))
    start = torch.cat([p.detach().reshape(-1) for p in model.parameters()])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for _ in range(400):
        optimizer.zero_grad()
        nn.functional.mse_loss(model(x), y).backward()
        optimizer.step()
    final = torch.cat([p.detach().reshape(-1) for p in model.parameters()])
    found = landscape.project(start)
    assert found.ok
    assert found.distance <= float((start - final).norm()) * (1 + 1e-9)
    after = torch.cat([p.detach().reshape(-1) for p in model.parameters()])
    assert torch.equal(after, final)


def test_projection_refuses_what_it_cannot_do():
    model, data = small_network()
    landscape = Landscape(model, nn.functional.mse_loss, data)
    with pytest.raises(ValueError, match='max_residuals = 10 residuals, got 60.*anchor="final"'):
        landscape.project(max_residuals=10)
    labels = torch.zeros(20, dtype=torch.long)
    with pytest.raises(TypeError, match="needs a squared loss"):
        Landscape(model, nn.functional.cross_entropy, (data[0], labels)).project()
    with pytest.raises(TypeError, match="needs a squared loss"):
        Landscape(model, nn.functional.l1_loss, data).project()


def test_bad_input():
    model, data = small_network()
    norm = nn.Sequential(model, nn.BatchNorm1d(3).double())
    with pytest.raises(RuntimeError, match="BatchNorm1d '1' is in train mode"):
        Landscape(norm, nn.functional.mse_loss, data)
    norm.eval()
    assert Landscape(norm, nn.functional.mse_loss, data).loss() > 0
    with pytest.raises(ValueError, match="as many inputs as targets"):
        Landscape(model, nn.functional.mse_loss, (data[0], data[1][:3]))
    with pytest.raises(ValueError, match="chunk must be a whole number of at least 1, got 0"):
        Landscape(model, nn.functional.mse_loss, data, chunk=0)
    landscape = Landscape(model, nn.functional.mse_loss, data)
    with pytest.raises(ValueError, match="k must be a whole number of at least 1, got 0"):
        landscape.smoothness(0)
    with pytest.raises(ValueError, match="batch_size must be a whole number of at least 1, got 0"):
        landscape.noise(0)
    with pytest.raises(ValueError, match="at most the number of examples = 20"):
        landscape.noise(21, replacement=False)
    with torch.no_grad():
        model[0].weight.fill_(float("nan"))
    with pytest.raises(RuntimeError, match="not finite"):
        landscape.noise(4)
    with pytest.raises(ValueError, match="at least one sample"):
        fit_noise([])
    with pytest.raises(ValueError, match="finite V >= 0"):
        fit_noise([(-1.0, 1.0)])
    with pytest.raises(ValueError, match="kind must be"):
        fit_noise([NoiseSample(1.0, 1.0, 1.0, 1)], "median")
    with pytest.raises(ValueError, match="needs 0 < mu <= L_max"):
        a_priori_noise(1.0, 2.0, 1)
