"""The law of the prompts."""

import numpy as np
import pytest
import torch

from surefoot.in_context import GaussianPrompts, ols, ridge

S = torch.tensor([[2.0, 0.5], [0.5, 0.3]], dtype=torch.float64)


def test_the_law():
    p = GaussianPrompts(2, 5, sigma=S, seed=0).sample(40_000)
    x = p.X.permute(0, 2, 1).reshape(-1, 2)
    assert torch.allclose(x.T @ x / len(x), S, atol=0.02)
    assert torch.allclose(p.xq.T @ p.xq / len(p.xq), S, atol=0.04)
    # Not N(0, I): that is another task.
    assert torch.allclose(p.w.T @ p.w / len(p.w), torch.linalg.inv(S), atol=0.15)
    assert torch.allclose(p.y, (p.w[:, None] @ p.X)[:, 0])
    assert torch.allclose(p.target, (p.w * p.xq).sum(1))


def test_noise_is_on_the_labels_alone():
    p = GaussianPrompts(2, 50, noise=0.3, seed=1).sample(2000)
    left = p.y - (p.w[:, None] @ p.X)[:, 0]
    assert float(left.std()) == pytest.approx(0.3, rel=0.02)
    assert torch.equal(p.target, (p.w * p.xq).sum(1))


def test_whitened_moments_are_those_of_the_examples():
    prompts = GaussianPrompts(2, 5, sigma=S, seed=0)
    drawn = prompts.whitened_moments(20_000)
    X = GaussianPrompts(2, 5, seed=1).sample(20_000).X
    assert torch.allclose(drawn.mean(0), (X @ X.mT / 5).mean(0), atol=0.03)
    assert float(drawn.square().sum((1, 2)).mean()) == pytest.approx(2 * (5 + 3) / 5, rel=0.03)
    # A stream of their own.
    assert torch.equal(prompts.sample(3).X, GaussianPrompts(2, 5, sigma=S, seed=0).sample(3).X)


@pytest.mark.parametrize("n", [2, 6])
def test_without_noise_least_squares_has_the_bayes_risk(n):
    prompts = GaussianPrompts(4, n, seed=0)
    p = prompts.sample(5_000)
    error = (ols(p.X, p.y, p.xq) - p.target).square()
    risk = prompts.bayes_risk()
    assert (risk.value, risk.stderr) == (max(4 - n, 0), 0)
    assert abs(float(error.mean()) - risk.value) < 4 * float(error.std()) / 70 + 1e-12


@pytest.mark.parametrize("n", [2, 6])
def test_with_noise_ridge_has_it(n):
    prompts = GaussianPrompts(4, n, noise=0.7, seed=0)
    p = prompts.sample(20_000)
    error = (ridge(p.X, p.y, p.xq, 0.49) - p.target).square()
    risk = prompts.bayes_risk()
    assert risk.stderr > 0
    assert abs(float(error.mean()) - risk.value) < 4 * (float(error.std()) / 141 + risk.stderr)


def test_the_seed_is_told_and_repeats():
    fresh = GaussianPrompts(3, 4)
    again = GaussianPrompts(3, 4, seed=fresh.seed)
    assert torch.equal(fresh.sample(5).X, again.sample(5).X)
    assert not torch.equal(fresh.sample(5).X, GaussianPrompts(3, 4, seed=fresh.seed).sample(5).X)


@pytest.mark.parametrize(
    ("args", "options", "says"),
    [
        ((0, 4), {}, "^d must be"), ((3, -1), {}, "^n must be"), ((3, 4), {"noise": -1}, "^noise must be"),
        ((3, 4), {"noise": float("nan")}, "^noise must be"), ((3, 4), {"seed": -1}, "^seed must be"),
        ((3, 4), {"sigma": np.eye(2)}, "^sigma must have shape"),
        ((3, 4), {"sigma": np.diag([1.0, 1.0, 0.0])}, "^sigma must be positive definite"),
        ((3, 4), {"sigma": np.full((3, 3), np.nan)}, "^sigma must be .*finite"),
        ((3, 4), {"dtype": torch.float16}, "^dtype must be one of"),
    ],
)  # fmt: skip
def test_bad_settings_are_named(args, options, says, unchecked):
    with pytest.raises(ValueError, match=says):
        GaussianPrompts(*args, **options)


def test_bad_calls_are_named(unchecked):
    with pytest.raises(ValueError, match="^B must be"):
        GaussianPrompts(3, 4).sample(0)
    with pytest.raises(ValueError, match="^n must be at least 1"):
        GaussianPrompts(3, 0).whitened_moments(2)
    assert GaussianPrompts(3, 0, seed=0).sample(2).X.shape == (2, 3, 0)
