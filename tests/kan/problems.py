"""Small problems whose answers are known without the code under test."""

import torch
from torch import nn

from surefoot.kan import KAN2


def line(n, width=0.9):
    """n points of one feature, equally far apart."""
    return torch.linspace(-width, width, n, dtype=torch.float64)[:, None]


def certified(m=256, scale=0.003, n=5, seed=0):
    """A start that T1 covers: labels small enough."""
    X = line(n)
    return KAN2(1, m, symmetric=True, seed=seed), X, scale * torch.sin(3 * X[:, 0])


class Hidden(nn.Module):
    """A model behind a door that shows nothing but its outputs."""

    def __init__(self, model):
        super().__init__()
        self.inner = model

    def forward(self, x):
        return self.inner(x)


class Linear:
    """r = A theta - b: K is constant, Lambda is 0, and all that is promised can be computed by hand."""

    pde_order, spline_order, width = 0, 3, 1

    def __init__(self, A, b):
        self.A, self.b = A, b
        self.theta = nn.Parameter(torch.zeros(A.shape[1], dtype=torch.float64))
        self.parameters = [self.theta]

    def residual(self):
        return self.A @ self.theta - self.b

    def jacobian(self):
        return self.A.clone()

    def gram(self):
        return self.A @ self.A.T

    def hessian_bound(self, R):
        return 0.0


def linear(n=3, p=4, seed=0):
    """A linear problem with a well-conditioned K."""
    g = torch.Generator().manual_seed(seed)
    A = torch.randn(n, p, generator=g, dtype=torch.float64)
    return Linear(A, torch.randn(n, generator=g, dtype=torch.float64))
