"""Benign landscapes with known constants: the oscillating parabola, a sphere, a curved valley.

In the setting of arXiv 2410.08395. Each gives f on a flat vector, the closest minimiser, and the
constants mu (strong aiming), L (smoothness) and lambda_min (most negative curvature); derived here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import sqrt

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class BenignLandscape:
    """A function with its manifold of minimisers, f* = 0."""

    name: str
    f: Callable[[Float[Tensor, " P"]], Float[Tensor, ""]]
    closest: Callable[[Float[Tensor, " P"]], Float[Tensor, " P"]]
    start: Float[Tensor, " P"]
    mu: float
    L: float
    lambda_min: float


def oscillating_parabola(eps: float = 0.09, R: float = 5.0) -> BenignLandscape:
    """f(x) = x^2 (1 + eps sin(2R log|x|)) / 2: mu = 1 - eps sqrt(1 + 4R^2), curvature both signs."""

    def f(x: Float[Tensor, " P"]) -> Float[Tensor, ""]:
        # f(0) = 0, where the logarithm is not defined.
        square = (x**2).sum().clamp_min(torch.finfo(x.dtype).tiny)
        return 0.5 * square * (1 + eps * torch.sin(R * torch.log(square)))

    swing = eps * sqrt((1 - 2 * R**2) ** 2 + 9 * R**2)
    return BenignLandscape(
        "oscillating parabola", f, torch.zeros_like, torch.ones(1, dtype=torch.float64),
        mu=1 - eps * sqrt(1 + 4 * R**2), L=1 + swing, lambda_min=1 - swing,
    )  # fmt: skip


def sphere(mu: float = 0.01, dimension: int = 3) -> BenignLandscape:
    """f(u, z) = mu (|u| - 1)^2 / 2 + |z|^2 / 2 on R^d x R^3: the minimisers are a unit sphere."""

    def f(x: Float[Tensor, " P"]) -> Float[Tensor, ""]:
        u, z = x[:dimension], x[dimension:]
        radius: Tensor = torch.linalg.vector_norm(u)
        return 0.5 * mu * (radius - 1) ** 2 + 0.5 * (z**2).sum()

    def closest(x: Float[Tensor, " P"]) -> Float[Tensor, " P"]:
        u = x[:dimension]
        return torch.cat([u / torch.linalg.vector_norm(u), torch.zeros_like(x[dimension:])])

    start = torch.tensor([1.6, 1.2, 0.9, 1.0, -1.0, 0.5], dtype=torch.float64)
    # Across the radius the curvature of the sphere term is -mu (1/|u| - 1) inside the sphere.
    return BenignLandscape("sphere", f, closest, start, mu=mu, L=1.0, lambda_min=0.0)


def curved_valley(h: float = 0.02, bend: float = 0.15) -> BenignLandscape:
    """f = h(x) (y - bend sin x)^2 / 2 + z^2 / 2 with h(x) = h (1 + 0.3 sin x): a winding floor."""

    def f(p: Float[Tensor, " P"]) -> Float[Tensor, ""]:
        x, y, z = p[0], p[1], p[2]
        height = y - bend * torch.sin(x)
        return 0.5 * h * (1 + 0.3 * torch.sin(x)) * height**2 + 0.5 * z**2

    def closest(p: Float[Tensor, " P"]) -> Float[Tensor, " P"]:
        # Newton on the derivative of the squared distance to (t, bend sin t), from t = x.
        t = p[0].clone()
        for _ in range(50):
            sine, cosine = torch.sin(t), torch.cos(t)
            slope = (t - p[0]) + (bend * sine - p[1]) * bend * cosine
            curvature = 1 + (bend * cosine) ** 2 - (bend * sine - p[1]) * bend * sine
            step = slope / curvature
            t = t - step
            if abs(float(step)) < 1e-15:
                break
        return torch.stack([t, bend * torch.sin(t), torch.zeros_like(t)])

    start = torch.tensor([0.5, 1.0, 1.0], dtype=torch.float64)
    return BenignLandscape(
        "curved valley", f, closest, start, mu=0.7 * h, L=1.0, lambda_min=-0.0069
    )  # fmt: skip
