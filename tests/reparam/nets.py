"""Small networks with random signed scales, and runs of both sides of the equivalence."""

import torch
from torch import nn

from surefoot.reparam import ReparamConv2d, RepSGD, convert_to_plain, decay_groups

BRANCHES = ("kxk", "1x1", "identity")


def scales_for(channels, branches, generator):
    return {b: torch.randn(channels, generator=generator, dtype=torch.float64) for b in branches}


def net(activation="relu", dtype=torch.float64, seed=0, width=8, norm="bn", bias=False):
    """Stride 2, depthwise, grouped, and square blocks; scales from N(0, 1), signs and all."""
    g = torch.Generator().manual_seed(seed)

    def block(i, o, stride=1, groups=1, kernel=3, branches=BRANCHES):
        return ReparamConv2d(
            i, o, kernel, stride, groups, branches, "csla", scales_for(o, branches, g),
            generator=g, activation=activation, dtype=dtype, norm=norm, bias=bias,
        )  # fmt: skip

    head = nn.Linear(width, 5).to(dtype)
    with torch.no_grad():
        head.weight.copy_(torch.randn(5, width, generator=g) / 3)
        head.bias.zero_()
    return nn.Sequential(
        block(3, width, stride=2),
        block(width, width, groups=width, branches=("kxk", "identity")),
        block(width, width, groups=2, kernel=5, branches=("kxk", "3x3", "1x1", "identity")),
        block(width, width),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        head,
    )


def batches(count, seed=1, size=8, dtype=torch.float64):
    g = torch.Generator().manual_seed(seed)
    for _ in range(count):
        x = torch.randn(size, 3, 8, 8, generator=g, dtype=torch.float64).to(dtype)
        yield x, torch.randint(0, 5, (size,), generator=g)


def loss_of(batch):
    x, y = batch
    return lambda model: nn.functional.cross_entropy(model(x), y)


def pair(csla, lr=0.05, weight_decay=0.0, **settings):
    """(plain, RepSGD, csla, SGD) that start equal, decayed by the same rule."""
    plain, mults = convert_to_plain(csla, seed=None)
    ours = RepSGD(decay_groups(plain, weight_decay), lr, grad_mults=mults, **settings)
    theirs = torch.optim.SGD(decay_groups(csla, weight_decay), lr=lr, **settings)
    return plain, ours, csla, theirs


def step(model, optimizer, batch, before=None):
    optimizer.zero_grad()
    loss_of(batch)(model).backward()
    if before is not None:
        before(optimizer)
    optimizer.step()
