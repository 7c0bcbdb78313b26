"""Small models that every test of chains uses."""

from types import SimpleNamespace

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from surefoot.lora import ChainOfLora, RacConfig


class Mlp(nn.Module):
    def __init__(self, sizes=(8, 12, 6), head=3):
        super().__init__()
        self.first = nn.Linear(sizes[0], sizes[1])
        self.second = nn.Linear(sizes[1], sizes[2])
        self.head = nn.Linear(sizes[2], head)

    def forward(self, x):
        return self.head(torch.tanh(self.second(torch.tanh(self.first(x)))))


def mlp(seed=0, dtype=torch.float32, **about):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Mlp(**about).to(dtype)


def batch(i=0, rows=16, columns=8, classes=3, dtype=torch.float32):
    generator = torch.Generator().manual_seed(1000 + i)
    x = torch.randn(rows, columns, generator=generator, dtype=dtype)
    return x, torch.randint(classes, (rows,), generator=generator)


def wrapped(model=None, **about):
    about = {"r": 2, "lora_alpha": 4, "target_modules": ["first", "second"]} | about
    with torch.random.fork_rng():
        torch.manual_seed(7)
        return get_peft_model(model if model is not None else mlp(), LoraConfig(**about))


def train(chain, optimizer, steps, start=0):
    """A bare loop on batches that depend on the step only; the reports of the blocks that ended."""
    reports = []
    for i in range(start, start + steps):
        x, y = batch(i, dtype=chain.layers[0].A.dtype)
        nn.functional.cross_entropy(chain.model(x), y).backward()
        optimizer.step()
        optimizer.zero_grad()
        reports.append(chain.step(optimizer))
    return [r for r in reports if r is not None]


def adam(chain, lr=1e-2):
    return torch.optim.AdamW(chain.trainable_parameters(), lr=lr)


def make(lora=None, model=None, **config):
    """A chain of four steps a block and its optimizer."""
    config = {"steps_per_block": 4, "seed": 5} | config
    chain = ChainOfLora(wrapped(model, **(lora or {})), RacConfig(**config))
    return chain, adam(chain)


@pytest.fixture
def toys():
    return SimpleNamespace(
        mlp=mlp, Mlp=Mlp, batch=batch, wrapped=wrapped, train=train, adam=adam, make=make
    )
