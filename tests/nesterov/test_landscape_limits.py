"""What a landscape refuses to measure, and what it must not trip over."""

import pytest
import torch
from torch import nn

from surefoot.nesterov.probe import Landscape

MSE = nn.MSELoss()


def data(examples=6, width=4):
    g = torch.Generator().manual_seed(0)
    x = torch.randn(examples, width, generator=g, dtype=torch.float64)
    return x, torch.randn(examples, width, generator=g, dtype=torch.float64)


def drawn(model, seed=1):
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.double().parameters():
            p.copy_(torch.randn(p.shape, generator=g, dtype=p.dtype))
    return model


def layers(*middle):
    return drawn(nn.Sequential(nn.Linear(4, 5), *middle, nn.Linear(5, 4)))


@pytest.mark.parametrize(
    ("middle", "name"),
    [
        (nn.BatchNorm1d(5), "BatchNorm1d '1'"),
        (nn.SyncBatchNorm(5), "SyncBatchNorm '1'"),
        (nn.Dropout(0.1), "Dropout '1'"),
        (nn.AlphaDropout(0.1), "AlphaDropout '1'"),
    ],
)
def test_a_layer_in_train_mode_is_named(middle, name):
    model = layers(middle)
    with pytest.raises(RuntimeError, match=f"{name} is in train mode.*call .eval"):
        Landscape(model, MSE, data())
    model.eval()
    assert Landscape(model, MSE, data()).loss() > 0


def test_a_layer_that_returns_to_train_mode_is_found_at_the_measurement():
    model = layers(nn.BatchNorm1d(5)).eval()
    landscape = Landscape(model, MSE, data())
    model.train()
    measurements = [
        landscape.smoothness, landscape.curvature_min, landscape.project,
        lambda: landscape.noise(2),
    ]  # fmt: skip
    before = model[1].running_mean.clone()
    for measure in measurements:
        with pytest.raises(RuntimeError, match="train mode"):
            measure()
    assert torch.equal(model[1].running_mean, before)


@pytest.mark.parametrize(
    "layer", [nn.MultiheadAttention(4, 2, dropout=0.5), nn.GRU(4, 4, num_layers=2, dropout=0.5)]
)
def test_dropout_without_a_dropout_module(layer):
    with pytest.raises(RuntimeError, match=f"{type(layer).__name__} '' is in train mode"):
        Landscape(layer, MSE, data())


def test_batch_norm_without_statistics_mixes_examples_in_any_mode():
    model = layers(nn.BatchNorm1d(5, track_running_stats=False)).eval()
    with pytest.raises(RuntimeError, match="no running statistics.*track_running_stats=True"):
        Landscape(model, MSE, data())


def test_measurements_leave_the_model_and_the_global_generator_alone():
    model = layers(nn.Tanh())
    before = [p.detach().clone() for p in model.parameters()]
    state = torch.get_rng_state()
    landscape = Landscape(model, MSE, data(), chunk=4)
    landscape.smoothness(5)
    landscape.curvature_min(5)
    landscape.noise(2)
    landscape.project()
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True))
    assert all(p.grad is None for p in model.parameters())
    assert torch.equal(state, torch.get_rng_state())


class Unused(nn.Module):
    def __init__(self):
        super().__init__()
        self.used = drawn(nn.Linear(4, 4))
        self.unused = drawn(nn.Linear(4, 4))

    def forward(self, x):
        return self.used(x)


def test_a_parameter_the_loss_does_not_see_has_a_zero_gradient():
    model = Unused()
    alone = Landscape(model.used, MSE, data())
    both = Landscape(model, MSE, data())
    expected = torch.cat([alone.gradient(), torch.zeros(20, dtype=torch.float64)])
    torch.testing.assert_close(both.gradient(), expected, rtol=0, atol=0)
    assert both.smoothness(30).value == pytest.approx(alone.smoothness(30).value, rel=1e-9)
    assert both.curvature_min(30).value == pytest.approx(0, abs=1e-12)
    assert pytest.approx(alone.noise(2).V, rel=1e-12) == both.noise(2).V


def test_a_loss_that_is_linear_in_the_parameters_has_no_curvature():
    landscape = Landscape(drawn(nn.Linear(4, 4)), lambda o, t: (o * t).mean(), data())
    assert landscape.smoothness().value == 0
    assert landscape.curvature_min().value == 0


def test_frozen_parameters_leave_their_block_of_the_hessian():
    """Rows and columns of the dense Hessian that belong to the layers that still train."""
    model = layers(nn.Tanh())
    x, y = data()
    names = [n for n, _ in model.named_parameters()]
    values = [p.detach() for p in model.parameters()]
    sizes = [p.numel() for p in values]

    def f(t):
        parts = [a.reshape(v.shape) for a, v in zip(t.split(sizes), values, strict=True)]
        return MSE(torch.func.functional_call(model, dict(zip(names, parts, strict=True)), (x,)), y)

    dense = torch.autograd.functional.hessian(f, torch.cat([v.reshape(-1) for v in values]))
    keep = torch.cat([torch.full((n,), i != 1) for i, n in enumerate(sizes)])
    spectrum = torch.linalg.eigvalsh(dense[keep][:, keep])
    model[0].bias.requires_grad_(False)
    landscape = Landscape(model, MSE, (x, y), chunk=4)
    size = int(keep.sum())
    assert landscape.smoothness(size).value == pytest.approx(float(spectrum[-1]), rel=1e-10)
    assert landscape.curvature_min(size).value == pytest.approx(float(spectrum[0]), rel=1e-8)
    # The same by naming the parameters instead of freezing the others.
    model[0].bias.requires_grad_(True)
    chosen = [p for n, p in model.named_parameters() if n != "0.bias"]
    named = Landscape(model, MSE, (x, y), parameters=chosen)
    torch.testing.assert_close(named.gradient(), landscape.gradient(), rtol=1e-12, atol=1e-15)


def test_parameters_of_another_model():
    model = layers()
    with pytest.raises(ValueError, match="must be the model's own, got 2 that are not"):
        Landscape(model, MSE, data(), parameters=[*nn.Linear(2, 2).parameters(), model[0].weight])
    model.requires_grad_(False)
    with pytest.raises(ValueError, match=r"no parameter requires a gradient: call requires_grad_"):
        Landscape(model, MSE, data())


def test_chunks_need_a_mean():
    model = layers(nn.Tanh())
    summed = nn.MSELoss(reduction="sum")
    whole = Landscape(model, summed, data())
    assert whole.loss() == pytest.approx(24 * Landscape(model, MSE, data()).loss())
    with pytest.raises(ValueError, match="loss_fn must be a mean over examples"):
        Landscape(model, summed, data(), chunk=4)


def test_parameters_that_are_not_finite():
    model = layers(nn.Tanh())
    landscape = Landscape(model, MSE, data())
    with torch.no_grad():
        model[0].weight[0, 0] = float("nan")
    with pytest.raises(RuntimeError, match="product 1 of the operator is not finite"):
        landscape.smoothness()
    with pytest.raises(RuntimeError, match="product 1 of the operator is not finite"):
        landscape.curvature_min()
    with pytest.raises(RuntimeError, match="a per-example gradient is not finite"):
        landscape.noise(2)
    with pytest.raises(ValueError, match="the residual must be finite"):
        landscape.project()
