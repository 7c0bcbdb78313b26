"""What users wrap around a layer: Opacus, Accelerate, safetensors, a gradient scaler, averaged models."""

import copy

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from opacus.grad_sample import GradSampleModule
from safetensors.torch import load_model, save_model
from tests.kan.test_layer import relative, rows
from torch import nn
from torch.func import functional_call, grad, vmap
from torch.optim.swa_utils import AveragedModel

from surefoot.kan import KAN

pytestmark = pytest.mark.filterwarnings(
    "ignore::FutureWarning", "ignore:Full backward hook:UserWarning"
)
X = rows(24, 4, spread=0.9)
Y = (X.sum(1) > 0).long()


def network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return KAN([4, 5, 2], bias=True)


def loss_of(model, x=X):
    return nn.functional.cross_entropy(model(x), Y)


def test_opacus_has_the_gradients_of_each_sample():
    model = network()
    own = {k: p.detach() for k, p in model.named_parameters()}

    def loss(p, x, y):
        return nn.functional.cross_entropy(functional_call(model, p, (x[None],)), y[None])

    expected = vmap(grad(loss), (None, 0, 0))(own, X, Y)
    wrapped = GradSampleModule(copy.deepcopy(model))
    loss_of(wrapped).backward()
    for name, p in wrapped.named_parameters():
        assert relative(p.grad_sample, expected[name.removeprefix("_module.")]) < 1e-5


@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_accelerate(precision):
    model, plain = network(), network()
    try:
        accelerator = Accelerator(cpu=True, mixed_precision=precision)
        wrapped, optimizer = accelerator.prepare(model, torch.optim.SGD(model.parameters(), lr=0.1))
        accelerator.backward(loss_of(wrapped))
        optimizer.step()
    finally:
        AcceleratorState._reset_state(True)
    loss_of(plain).backward()
    for a, b in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(a, b - 0.1 * b.grad)


def test_a_gradient_scaler_and_autocast():
    model, plain = network(), network()
    optimizer, scaler = torch.optim.SGD(model.parameters(), lr=0.1), torch.amp.GradScaler("cpu")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = loss_of(model)
    scaler.scale(loss).backward()
    scaler.step(optimizer)
    loss_of(plain).backward()
    for a, b in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(a, b - 0.1 * b.grad)


def test_safetensors_and_averages_bring_the_grid(tmp_path):
    model = network().fit_grid(X * 3)
    save_model(model, str(tmp_path / "m.safetensors"))
    loaded = network()
    load_model(loaded, str(tmp_path / "m.safetensors"))
    torch.testing.assert_close(loaded(X), model(X), rtol=0, atol=0)
    mean = {k: 0.3 * v + 0.7 * v for k, v in model.state_dict().items()}
    loaded.load_state_dict(mean)
    torch.testing.assert_close(loaded(X), model(X))
    averaged = AveragedModel(model, use_buffers=True)
    averaged.update_parameters(model)
    torch.testing.assert_close(averaged(X), model(X))
