"""Gradient descent on the whole loss with Armijo back-tracking: every step proves its own descent."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

LEAST_STEP, GROWTH = 1e-12, 2.0


@dataclass
class Path:
    """Losses at the T + 1 iterates, squared gradient norms and step sizes of the T accepted steps."""

    losses: list[float] = field(default_factory=list)
    grad_norms_sq: list[float] = field(default_factory=list)
    step_sizes: list[float] = field(default_factory=list)
    stop: str = "all steps taken"


def descend(
    adapter: nn.Module,
    head: nn.Module,
    features: Float[Tensor, "N d"],
    labels: Int[Tensor, " N"],
    lr: float,
    steps: int,
) -> Path:
    """At most so many steps; f(x - eta g) <= f(x) - eta/2 |g|^2 at each of them, from eta = lr."""
    parameters = list(adapter.parameters())

    def loss() -> Tensor:
        return nn.functional.cross_entropy(head(adapter(features)), labels)

    path, eta = Path(), lr
    value = loss()
    path.losses.append(float(value.detach()))
    for _ in range(steps):
        gradient = torch.autograd.grad(value, parameters)
        squared = sum(float(g.double().square().sum()) for g in gradient)
        if squared == 0:
            path.stop = "the gradient is zero"
            break
        here = [p.detach().clone() for p in parameters]
        moved = None
        while eta >= LEAST_STEP and moved is None:
            _step(parameters, here, gradient, eta)
            tried = loss()
            enough = float(tried.detach()) <= path.losses[-1] - eta / 2 * squared
            moved, eta = (tried, eta) if enough else (None, eta / 2)
        if moved is None:
            _step(parameters, here, gradient, 0.0)
            path.stop = "stalled"
            break
        value = moved
        path.losses.append(float(value.detach()))
        path.grad_norms_sq.append(squared)
        path.step_sizes.append(eta)
        eta *= GROWTH
    return path


def _step(
    parameters: list[nn.Parameter], here: list[Tensor], gradient: tuple[Tensor, ...], eta: float
) -> None:
    with torch.no_grad():
        for p, start, g in zip(parameters, here, gradient, strict=True):
            p.copy_(start - eta * g)
