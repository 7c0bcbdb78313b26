"""A small network and its loss, for the tests of the optimisers."""

import torch
from torch import nn


def network(dtype=torch.float64):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Linear(9, 12),
            nn.Tanh(),
            nn.LayerNorm(12),
            nn.Linear(12, 7),
            nn.Tanh(),
            nn.Linear(7, 1),
        ).to(dtype)


def problem(dtype=torch.float64):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(30, 9, generator=generator, dtype=torch.float64).to(dtype)
    return x, torch.randn(30, 1, generator=generator, dtype=torch.float64).to(dtype)


def loss_of(model):
    x, y = problem(next(model.parameters()).dtype)
    return lambda: (
        (model(x) - y).float().square().mean()
        if x.dtype != torch.float64
        else (model(x) - y).square().mean()
    )


def flat(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])
