"""One block of a chain is one step of randomised-subspace gradient descent, to rounding."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers.pytorch_utils import Conv1D

from surefoot.lora import ChainOfLora, RacConfig

GAMMA = 0.3


class Net(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.lin = layer

    def forward(self, x):
        return self.lin(x)


def make(kind):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layer = {
            "linear": lambda: nn.Linear(11, 7),
            "conv1d": lambda: Conv1D(7, 11),
            "conv2d": lambda: nn.Conv2d(3, 7, 2),
        }[kind]()
        x = torch.randn((4, 3, 5, 5) if kind == "conv2d" else (9, 11), dtype=torch.float64)
    return Net(layer).double(), x


def as_matrix(kind, weight):
    return weight.T if kind == "conv1d" else weight.flatten(1)


def loss_of(model, x):
    return torch.tanh(model(x)).square().sum() / 10


def gradient(model, kind, x):
    """Of the loss in the base weight, by autograd on the plain model."""
    loss_of(model, x).backward()
    found = as_matrix(kind, model.lin.weight.grad).clone()
    model.zero_grad()
    return found


@pytest.mark.parametrize("kind", ["linear", "conv1d", "conv2d"])
@pytest.mark.parametrize("train", ["A", "B"])
@pytest.mark.parametrize(
    ("sketch", "precondition"),
    [("orthonormal", False), ("gaussian", True), ("kaiming_uniform", True), ("coordinate", False)],
)
@pytest.mark.parametrize(("r", "alpha", "rslora"), [(1, 1, False), (4, 8, False), (4, 8, True)])
def test_one_block_is_the_projected_step(kind, train, sketch, precondition, r, alpha, rslora):
    model, x = make(kind)
    before = as_matrix(kind, model.lin.weight.detach().clone())
    g = gradient(model, kind, x)
    peft_model = get_peft_model(
        model,
        LoraConfig(
            r=r, lora_alpha=alpha, use_rslora=rslora, target_modules=["lin"],
            fan_in_fan_out=kind == "conv1d",
        ),
    )  # fmt: skip
    chain = ChainOfLora(
        peft_model,
        RacConfig(train=train, sketch=sketch, precondition=precondition, steps_per_block=1, seed=3),
    )
    layer = chain.layers[0]
    frozen = (layer.A if train == "B" else layer.B).clone()
    optimizer = torch.optim.SGD(chain.param_groups(gamma=GAMMA), lr=1.0)
    loss_of(peft_model, x).backward()
    optimizer.step()
    optimizer.zero_grad()
    report = chain.step(optimizer)

    if train == "B":
        h = torch.linalg.pinv(frozen) @ frozen
        projected = g @ h
    else:
        h = frozen @ torch.linalg.pinv(frozen)
        projected = h @ g
    torch.testing.assert_close(chain.weight("lin"), before - GAMMA * projected, rtol=0, atol=1e-12)
    merged = as_matrix(kind, peft_model.get_base_model().lin.base_layer.weight.detach())
    torch.testing.assert_close(merged, before - GAMMA * projected, rtol=0, atol=1e-12)
    assert report.projected_grad_norm2 == pytest.approx(float(projected.square().sum()), rel=1e-10)
    assert report.update_norm == pytest.approx(GAMMA * float(projected.norm()), rel=1e-10)
