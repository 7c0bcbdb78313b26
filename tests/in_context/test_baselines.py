"""What a looped model is compared with."""

import numpy as np
import pytest
import torch

from surefoot.in_context import (
    FullLinearAttention,
    GaussianPrompts,
    GDPlusPlus,
    LoopedTransformer,
    SoftmaxTransformer,
    ols,
    optimal_model,
    optimal_schedule,
    ridge,
)
from surefoot.in_context._forms import literal

p = GaussianPrompts(3, 7, seed=0).sample(5)


@pytest.mark.parametrize("n", [7, 2])
def test_least_squares_and_ridge(n):
    q = GaussianPrompts(3, n, noise=0.1, seed=0).sample(4)
    for i in range(4):
        X, y = q.X[i].T.numpy(), q.y[i].numpy()
        w = np.linalg.lstsq(X, y, rcond=None)[0]
        v = np.linalg.solve(X.T @ X + 0.7 * np.eye(3), X.T @ y)
        assert float(ols(q.X, q.y, q.xq)[i]) == pytest.approx(float(q.xq[i].numpy() @ w), rel=1e-9)
        assert float(ridge(q.X, q.y, q.xq, 0.7)[i]) == pytest.approx(
            float(q.xq[i].numpy() @ v), rel=1e-9
        )


def test_full_attention_has_the_looped_model_in_it():
    model = LoopedTransformer(3, 2, train_u=True, init_std=0.3, dtype=torch.float64)
    full = FullLinearAttention(3, 2, tied=True, dtype=torch.float64)
    with torch.no_grad():
        model.u.fill_(0.2)
        P, Q = literal.blocks(model.A, model.u)
        full.P.copy_(P)
        full.Q.copy_(Q)
        assert torch.allclose(full(p.X, p.y, p.xq), model(p.X, p.y, p.xq), rtol=1e-11)


@pytest.mark.parametrize("loops", [1, 3])
def test_gd_plus_plus_is_attention_that_moves_the_features(loops):
    """A = a I: the layer with Q = [[a I, 0], [0, 0]] and P = [[gamma / a I, 0], [0, 1]]."""
    a, gamma = 0.4, 0.1
    model = GDPlusPlus(3, loops, dtype=torch.float64)
    full = FullLinearAttention(3, loops, tied=True, dtype=torch.float64)
    with torch.no_grad():
        model.A.copy_(a * torch.eye(3))
        plain = LoopedTransformer(3, loops, dtype=torch.float64)
        plain.A.copy_(model.A)
        assert torch.allclose(model(p.X, p.y, p.xq), plain(p.X, p.y, p.xq), rtol=1e-11)
        model.gamma.fill_(gamma)
        full.P.copy_(torch.diag(torch.tensor([gamma / a] * 3 + [1.0])))
        full.Q.copy_(torch.diag(torch.tensor([a] * 3 + [0.0])))
        assert torch.allclose(model(p.X, p.y, p.xq), full(p.X, p.y, p.xq), rtol=1e-11)


def test_softmax_attention_by_hand():
    model = SoftmaxTransformer(3, 2, dtype=torch.float64).requires_grad_(False)
    Z = literal.prompt_matrix(p.X, p.y, p.xq)
    for _ in range(2):
        new = Z.clone()
        for j in range(8):
            scores = torch.stack(
                [(Z[:, :, i] * (Z[:, :, j] @ model.Q.T)).sum(1) for i in range(7)], 1
            )
            share = torch.exp(scores) / torch.exp(scores).sum(1, keepdim=True)
            for i in range(7):
                new[:, :, j] -= share[:, i : i + 1] * (Z[:, :, i] @ model.P.T)
        Z = new
    assert torch.allclose(model(p.X, p.y, p.xq), -Z[:, -1, -1], rtol=1e-10)
    doubled = model(p.X, p.y, 2 * p.xq)
    assert not torch.allclose(doubled, 2 * model(p.X, p.y, p.xq), rtol=0.05)


def test_the_exact_optimum_as_a_model():
    S = torch.diag(torch.tensor([1.0, 2.0, 4.0]))
    model = optimal_model(3, 9, 3, tied=False, sigma=S).requires_grad_(False)
    steps = [float(A[0, 0]) for A in model.A]
    assert steps == pytest.approx(optimal_schedule(3, 9, 3).steps)
    assert float(model.A[0, 2, 2]) == pytest.approx(steps[0] / 4)


@pytest.mark.parametrize(
    "call",
    [
        ols, lambda *q: ridge(*q, 1.0), FullLinearAttention(3, 1), GDPlusPlus(3, 1), SoftmaxTransformer(3, 1),
    ],
)  # fmt: skip
def test_bad_prompts_are_named(call, unchecked):
    X, y, xq = torch.zeros(2, 3, 4), torch.zeros(2, 4), torch.zeros(2, 3)
    for broken, name in (
        ((X, y[:, :1], xq), "y"),
        ((X, y, xq[:, :1]), "xq"),
        ((X / 0, y, xq), "X"),
    ):
        with pytest.raises(ValueError, match=f"^{name} must"):
            call(*broken)


@pytest.mark.parametrize("kind", [FullLinearAttention, GDPlusPlus, SoftmaxTransformer])
def test_bad_settings_are_named(kind, unchecked):
    with pytest.raises(ValueError, match="^d must be"):
        kind(0, 1)
    with pytest.raises(ValueError, match="^loops must be"):
        kind(3, -1)
    with pytest.raises(ValueError, match="^alpha must be"):
        ridge(p.X, p.y, p.xq, 0)
    with pytest.raises(ValueError, match="^X must hold at least one example"):
        SoftmaxTransformer(3, 1)(torch.zeros(2, 3, 0), torch.zeros(2, 0), torch.zeros(2, 3))
