"""The tables of the acceptance checks, and a network of plain modules to test on."""

import functools
import itertools

import numpy as np
import torch
from sklearn.datasets import (
    load_breast_cancer,
    load_diabetes,
    load_digits,
    load_wine,
    make_friedman1,
)
from sklearn.model_selection import train_test_split
from torch import nn

CLASSES = ("digits", "breast_cancer", "wine")
NUMBERS = ("diabetes", "friedman1")
LOADERS = {
    "digits": load_digits, "breast_cancer": load_breast_cancer, "wine": load_wine,
    "diabetes": load_diabetes,
}  # fmt: skip


@functools.cache
def table(name, seed=0):
    """X, y for the fit and for the test: a quarter, of equal class shares."""
    if name == "friedman1":
        X, y = make_friedman1(1200, n_features=10, noise=0.5, random_state=seed)
    else:
        X, y = LOADERS[name](return_X_y=True)
    return train_test_split(
        X, y, test_size=0.25, random_state=seed, stratify=y if name in CLASSES else None
    )


def plain(widths, activation="tanh", seed=0, scale=1.0, dtype=torch.float64):
    """A random nn.Sequential of these widths, inputs first."""
    g = torch.Generator().manual_seed(seed)
    parts = []
    for i, (a, b) in enumerate(itertools.pairwise(widths)):
        linear = nn.Linear(a, b, dtype=dtype)
        with torch.no_grad():
            for p in linear.parameters():
                p.copy_(scale * torch.randn(p.shape, generator=g, dtype=torch.float64))
        parts.append(linear)
        if i < len(widths) - 2:
            parts.append({"tanh": nn.Tanh, "relu": nn.ReLU, "sigmoid": nn.Sigmoid}[activation]())
    return nn.Sequential(*parts)


def pruned_copy(module, share, seed=0):
    """A copy in which a random share of the weights is 0."""
    import copy

    g = np.random.default_rng(seed)
    found = copy.deepcopy(module)
    with torch.no_grad():
        for part in found:
            if isinstance(part, nn.Linear):
                part.weight[torch.from_numpy(g.random(part.weight.shape) < share)] = 0
    return found
