"""Prompts that are not of the theorems' law are told so; too few say nothing."""

import math

import numpy as np
import pytest
import torch

from surefoot.in_context import GaussianPrompts, prompt_assumptions

MEAN, KURTOSIS, NORMS, WEIGHTS, NOISE = range(5)
B, D, N = 400, 4, 20


def drawn(kind, seed=0):
    rng = np.random.default_rng(seed)
    size = (B, D, N)
    x = {
        "gaussian": lambda: rng.normal(size=size),
        "signs": lambda: rng.choice([-1.0, 1.0], size=size),
        "laplace": lambda: rng.laplace(size=size),
        "shifted": lambda: rng.normal(size=size) + 0.3,
        # Some rows are larger than others as a whole.
        "scales": lambda: rng.normal(size=size) * rng.choice([0.7, 1.3], size=(B, 1, N)),
    }[kind]()
    w = rng.normal(size=(B, D))
    return x, np.einsum("bd,bdn->bn", w, x), w


def holds(X, y, w=None, **more):
    return [a.holds for a in prompt_assumptions(X, y, w, **more)]


def test_gaussian_prompts_satisfy_everything():
    X, y, w = drawn("gaussian")
    assert holds(X, y) == [True] * 5
    assert holds(torch.tensor(X), torch.tensor(y), torch.tensor(w)) == [True] * 5


def test_correlated_ones_with_weights_of_the_inverse_covariance_too():
    root = np.random.default_rng(2).normal(size=(D, D))
    prompt = GaussianPrompts(D, N, sigma=torch.tensor(root @ root.T + 0.1 * np.eye(D)), seed=0)
    some = prompt.sample(B)
    assert holds(some.X, some.y) == [True] * 5
    # Weights of N(0, I) are the mistake that the spec warns of.
    w = torch.randn(B, D, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = prompt_assumptions(some.X, (some.X * w[..., None]).sum(1))
    assert found[WEIGHTS].holds is False
    assert found[WEIGHTS].measured > 0.5


@pytest.mark.parametrize(
    ("kind", "which"),
    [("signs", KURTOSIS), ("laplace", KURTOSIS), ("shifted", MEAN), ("scales", NORMS)],
)
def test_each_departure_fails_the_condition_it_belongs_to(kind, which):
    X, y, _ = drawn(kind)
    assert holds(X, y)[which] is False
    assert holds(X, y)[NOISE] is True


def test_the_kurtosis_is_that_of_the_law():
    # 3 - 2 for signs: exactly 1, as every fourth power is.
    X, y, _ = drawn("signs")
    assert prompt_assumptions(X, y)[KURTOSIS].measured == pytest.approx(2, abs=0.02)
    X, y, _ = drawn("laplace")
    assert prompt_assumptions(X, y)[KURTOSIS].measured == pytest.approx(3, abs=0.5)
    # Mixture of two scales: E s^4 / (E s^2)^2 - 1.
    X, y, _ = drawn("scales")
    want = (0.7**4 + 1.3**4) / 2 / ((0.7**2 + 1.3**2) / 2) ** 2 - 1
    assert prompt_assumptions(X, y)[NORMS].measured == pytest.approx(want, abs=0.03)


def test_noise_is_the_residual_variance_as_a_share():
    X, y, _ = drawn("gaussian")
    noisy = y + 0.5 * np.random.default_rng(3).normal(size=y.shape)
    found = prompt_assumptions(X, noisy)[NOISE]
    assert found.measured == pytest.approx(0.25 / (D + 0.25), rel=0.1)
    assert found.holds is False


def test_where_examples_do_not_outnumber_features_nothing_is_told_of_noise():
    prompt = GaussianPrompts(6, 5, seed=0).sample(2000)
    found = prompt_assumptions(prompt.X, prompt.y)
    assert [a.holds for a in found[3:]] == [None, None]
    assert [a.measured for a in found[3:]] == [None, None]
    assert prompt_assumptions(prompt.X, prompt.y, prompt.w)[WEIGHTS].holds is True


def test_few_prompts_tell_nothing_rather_than_something_favourable():
    X, y, _ = drawn("gaussian")
    few = holds(X[:6], y[:6])
    assert few[KURTOSIS] is None
    assert few[WEIGHTS] is None
    assert False not in few


def test_gaussian_prompts_are_seldom_refused():
    some = [GaussianPrompts(3, 8, seed=s).sample(60) for s in range(60)]
    found = [holds(prompt.X, prompt.y) for prompt in some]
    refused = sum(h is False for row in found for h in row)
    # 300 verdicts at 99%; the thresholds make a wrong one far rarer than 1%.
    assert refused <= 3


def test_labels_of_zero():
    X, y, _ = drawn("gaussian")
    found = prompt_assumptions(X, 0 * y)
    assert (found[NOISE].holds, found[WEIGHTS].holds) == (True, None)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"X": np.zeros((5, 3))}, "X must have 3 dimensions"),
        ({"X": np.full((5, 3, 10), math.nan)}, "X must be finite"),
        ({"y": np.zeros((5, 9))}, "y must have shape"),
        ({"w": np.zeros((5, 4))}, "w must have shape"),
        ({"X": np.ones((5, 3, 10))}, "positive definite"),
        ({"X": np.ones((1, 3, 10)), "y": np.ones((1, 10))}, "at least 2 prompts"),
        ({"confidence": 1.0}, "confidence"),
    ],
)
def test_bad_arguments_are_named(given, words):
    X = np.random.default_rng(0).normal(size=(5, 3, 10))
    with pytest.raises(ValueError, match=words):
        prompt_assumptions(**({"X": X, "y": X[:, 0]} | given))
