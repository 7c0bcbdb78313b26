"""Synthetic clients: four classes on a sphere, a shift of its own in each domain."""

import torch

from surefoot.prototypes import ZeroShotHead

D, CLASSES = 16, 4


def directions():
    return torch.randn(CLASSES, D, generator=torch.Generator().manual_seed(0))


def head(dtype=torch.float32, scale=5.0, normalize=True):
    return ZeroShotHead(directions().to(dtype), scale=scale, normalize=normalize)


def clients(count=3, n=48, dtype=torch.float32, noise=1.5):
    found = []
    for i in range(count):
        g = torch.Generator().manual_seed(i + 1)
        y = torch.randint(0, CLASSES, (n,), generator=g)
        z = directions()[y] + noise * torch.randn(n, D, generator=g)
        z = z + 2.5 * torch.randn(D, generator=g)
        found.append((torch.nn.functional.normalize(z, dim=1).to(dtype), y))
    return found
