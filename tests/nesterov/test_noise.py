"""Noise by brute force and enumeration; fits against a linear-program solver and exact laws."""

import itertools
from math import comb

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog
from torch import nn

from surefoot.nesterov._probe.noise import NoiseSample, fit_noise, noise_from_batches
from surefoot.nesterov.probe import Landscape


def classifier(examples=8):
    g = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 4)).double()
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=g, dtype=p.dtype))
    x = torch.randn(examples, 5, generator=g, dtype=torch.float64)
    y = torch.randint(4, (examples,), generator=g)
    return model, x, y


def batch_gradient(model, x, y):
    loss = nn.functional.cross_entropy(model(x), y)
    return torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss, list(model.parameters()))])


@pytest.mark.parametrize("batch", [1, 3, 7, 8])
def test_without_replacement_against_every_batch_of_a_network(batch):
    model, x, y = classifier()
    full = batch_gradient(model, x, y)
    subsets = [list(b) for b in itertools.combinations(range(8), batch)]
    assert len(subsets) == comb(8, batch)
    squares = [float(((batch_gradient(model, x[b], y[b]) - full) ** 2).sum()) for b in subsets]
    exact = float(np.mean(squares))
    found = Landscape(model, nn.functional.cross_entropy, (x, y)).noise(batch, replacement=False)
    assert pytest.approx(exact, rel=1e-12, abs=1e-28) == found.V
    assert found.grad_sq == pytest.approx(float(full @ full), rel=1e-12)


def test_with_replacement_against_every_ordered_draw_of_a_network():
    model, x, y = classifier(4)
    full = batch_gradient(model, x, y)
    draws = itertools.product(range(4), repeat=3)
    squares = [
        float(((batch_gradient(model, x[list(b)], y[list(b)]) - full) ** 2).sum()) for b in draws
    ]
    found = Landscape(model, nn.functional.cross_entropy, (x, y)).noise(3)
    assert pytest.approx(float(np.mean(squares)), rel=1e-12) == found.V


def test_a_duplicated_example_has_no_noise():
    model, x, y = classifier()
    landscape = Landscape(
        model, nn.functional.cross_entropy, (x[:1].repeat(6, 1), y[:1].repeat(6)), chunk=4
    )
    found = landscape.noise(2)
    assert 1e-28 * found.grad_sq >= found.V


def test_batches_below_the_noise_say_so():
    """Gradients that cancel: nothing of |grad f|^2 is left, and the fit reads all as additive."""
    g = torch.tensor([[1.0, 0.0], [-1.0, 0.0]] * 4, dtype=torch.float64)
    sample = noise_from_batches(g, 2)
    assert pytest.approx(8 / 7) == sample.V
    assert sample.grad_sq == pytest.approx(-1 / 7)
    assert np.isnan(sample.V1)
    fit = fit_noise([sample])
    assert fit.sigma_add**2 == pytest.approx(8 / 7)
    assert fit.sigma_mult == 0


def test_a_gradient_estimated_below_zero_counts_as_none():
    fit = fit_noise([(2.0, -1.0), (1.0, 0.5), (0.1, 0.01)])
    assert fit.sigma_add**2 == pytest.approx(2)
    assert fit.sigma_mult == 0


def test_batches_that_are_not_finite():
    with pytest.raises(RuntimeError, match="a batch gradient is not finite"):
        noise_from_batches(torch.full((8, 2), float("nan")), 2)


# A solver drops coefficients below 1e-9, so the gradients are none or not too small.
values = st.tuples(st.floats(1e-3, 1e3), st.just(0.0) | st.floats(1e-3, 1e3))
many = st.lists(values, min_size=2, max_size=10)


def objective(a, m, V, G):
    return float(((a + m * G) / V).sum())


@given(samples=many)
@settings(max_examples=60, deadline=None)
def test_envelope_is_the_solution_of_the_linear_program(samples):
    V, G = np.array(samples).T
    solved = linprog(
        [(1 / V).sum(), (G / V).sum()], A_ub=-np.stack([1 / V, G / V], axis=1),
        b_ub=-np.ones(len(V)), bounds=[(0, None), (0, None)], method="highs",
    )  # fmt: skip
    assume(solved.success)
    fit = fit_noise(samples)
    found = objective(fit.sigma_add**2, fit.sigma_mult**2, V, G)
    # The solver may undercut by its feasibility tolerance of 1e-7 a sample, never more.
    assert solved.fun <= found * (1 + 1e-6)
    assert found <= solved.fun * (1 + 1e-6)


@given(samples=many)
@settings(max_examples=80, deadline=None)
def test_envelope_covers_and_is_never_below_least_squares_where_it_binds(samples):
    V, G = np.array(samples).T
    above = fit_noise(samples)
    among = fit_noise(samples, "least_squares")
    envelope = above.sigma_add**2 + above.sigma_mult**2 * G
    middle = among.sigma_add**2 + among.sigma_mult**2 * G
    assert (envelope >= V).all() or ((V - envelope) / V).max() <= 1e-15
    binding = V / envelope > 1 - 1e-9
    assert binding.any()
    # Where the envelope binds it equals V; a weighted fit that is above V at every binding sample
    # would cover more than the smallest envelope has to.
    assert (middle[binding] <= envelope[binding] * (1 + 1e-6)).any()


@given(samples=many, scale=st.floats(1e-12, 1e12), share=st.floats(1e-12, 1e12))
@settings(max_examples=60, deadline=None)
def test_units_do_not_matter(samples, scale, share):
    """V in other units scales both constants, the gradient in other units the multiplicative one."""
    fit = fit_noise(samples)
    other = fit_noise([(v * scale, g * share) for v, g in samples])
    V, G = np.array(samples).T
    cost = objective(fit.sigma_add**2, fit.sigma_mult**2, V, G)
    assert objective(
        other.sigma_add**2 / scale, other.sigma_mult**2 * share / scale, V, G
    ) == pytest.approx(cost, rel=1e-9)


@given(
    exponents=st.lists(st.floats(-24, -1), min_size=2, max_size=6),
    ratio=st.floats(0.5, 50),
    below=st.floats(0.05, 1),
)
@settings(max_examples=200, deadline=None)
def test_rounding_of_large_samples_is_no_additive_noise(exponents, ratio, below):
    """Along a run that interpolates, V falls over twenty orders in proportion to the gradient."""
    G = 10 ** np.array(exponents)
    V = ratio * G * np.where(np.arange(len(G)) % 2, below, 1)
    fit = fit_noise(list(zip(V, G, strict=True)))
    bound = fit.sigma_add**2 + fit.sigma_mult**2 * G
    through_zero = float((V / G).max())
    assert (bound >= V * (1 - 1e-15)).all()
    assert (bound / V).sum() <= (through_zero * G / V).sum() * (1 + 1e-9)


def test_rounding_of_one_large_sample_found_by_search():
    """One sample misses its own line by a rounding error, which the smallest sample would feel."""
    samples = [
        (3.987050988739503e-17, 1.0224553136135945e-17),
        (2.2955108074561354e-23, 6.641722488604973e-24),
        (0.011827410783651097, 0.005190184404132468),
        (8.627844451815908e-07, 2.045082713964156e-07),
    ]
    V, G = np.array(samples).T
    fit = fit_noise(samples)
    assert fit.sigma_add == 0
    assert fit.sigma_mult**2 == pytest.approx(float((V / G).max()))


@given(sa2=st.floats(0, 10), sm2=st.floats(0, 100), n=st.integers(5, 20), seed=st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_least_squares_residual_is_stationary(sa2, sm2, n, seed):
    """Independent check of the optimum: the KKT conditions of the non-negative problem."""
    rng = np.random.default_rng(seed)
    G = 10 ** rng.uniform(-3, 2, n)
    V = (sa2 + sm2 * G + 1e-3) * rng.uniform(0.5, 2, n)
    fit = fit_noise(list(zip(V, G, strict=True)), "least_squares")
    left = (V - fit.sigma_add**2 - fit.sigma_mult**2 * G) / V
    for constant, column in ((fit.sigma_add**2, 1 / V), (fit.sigma_mult**2, G / V)):
        slope = float(column @ left) / (np.linalg.norm(column) * np.sqrt(n))
        assert slope <= 1e-9
        assert constant == 0 or abs(slope) <= 1e-9


def test_a_gradient_next_to_zero_is_no_reason_to_overflow():
    fit = fit_noise([(1.0, 2.0), (1.0, 1e-308), (2.0, 0.0)])
    assert fit.sigma_add**2 == pytest.approx(2)
    assert fit.sigma_mult == 0


def test_no_noise_at_all():
    fit = fit_noise([NoiseSample(0.0, 1.0, 0.0, 4)] * 5)
    assert (fit.sigma_mult, fit.sigma_add, fit.n) == (0, 0, 5)
    assert fit.certifying


def test_kind_is_checked_before_anything_else():
    with pytest.raises(
        ValueError, match="kind must be one of 'envelope', 'least_squares', got 'median'"
    ):
        fit_noise([(0.0, 1.0)], "median")
    with pytest.raises(ValueError, match="finite"):
        fit_noise([(1.0, float("nan"))])


def test_a_summed_loss_is_refused():
    """Per-example gradients of a sum are not parts of a mean: V and |grad f|^2 would not match."""
    model, x, y = classifier()
    summed = Landscape(model, nn.CrossEntropyLoss(reduction="sum"), (x, y))
    with pytest.raises(ValueError, match="loss_fn must be a mean over examples"):
        summed.noise(2)
