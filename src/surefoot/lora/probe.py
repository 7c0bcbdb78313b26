"""How the conditions of the theorems are measured on a model: smoothness, PL constant, noise."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from surefoot._numerics.arguments import checked
from surefoot._numerics.checks import check_number
from surefoot._numerics.curvature import Hessian, power_iteration
from surefoot.lora.chain import ChainOfLora

Closure = Callable[[], Tensor]


@checked
def local_smoothness(chain: ChainOfLora, closure: Closure, iters: int = 50) -> float:
    """Norm of the Hessian in the factors that the open block trains, by power iteration (G8).

    A lower estimate that converges from below. `closure()` returns the loss, the same each time: no
    dropout. Attention kernels without a second derivative need attn_implementation="eager".

    Parameters
    ----------
    chain
        Its open block counts.
    closure
        The loss.
    iters
        Power iterations, one Hessian-vector product each.
    """
    return _hessian_norm([p for p in chain.factors().values() if p.requires_grad], closure, iters)


def smoothness(chain: ChainOfLora, closure: Closure, iters: int = 50) -> float:
    """The same in the adapted weights themselves: an estimate of L from below, here and now.

    Parameters
    ----------
    chain
        As it stands.
    closure
        The loss.
    iters
        Power iterations.
    """
    with _weights(chain) as weights:
        return _hessian_norm(weights, closure, iters)


def full_gradient(chain: ChainOfLora, closure: Closure) -> dict[str, Float[Tensor, "m n"]]:
    """The gradient in the adapted weights as (out, in), by layer name."""
    with _weights(chain) as weights:
        found = torch.autograd.grad(closure(), weights)
    return {
        layer.name: layer.as_matrix(g.detach())
        for layer, g in zip(chain.layers, found, strict=True)
    }


def grad_norm2(gradient: dict[str, Float[Tensor, "m n"]]) -> float:
    """||grad f||_F^2 over all layers."""
    return sum(float(g.double().square().sum()) for g in gradient.values())


def gradient_variance(chain: ChainOfLora, closures: Sequence[Closure]) -> float:
    """(1/N) sum ||grad f_i - grad f||_F^2 over component losses, at the present weights."""
    gradients = [full_gradient(chain, closure) for closure in closures]
    total = 0.0
    for name in gradients[0]:
        stacked = torch.stack([g[name].double() for g in gradients])
        total += float((stacked - stacked.mean(0)).square().sum()) / len(closures)
    return total


def secant_smoothness(
    weights: Sequence[dict[str, Tensor]], gradients: Sequence[dict[str, Tensor]]
) -> float:
    """Largest ||G' - G|| / ||W' - W|| between neighbours of a path: a lower estimate of L."""
    best = 0.0
    for i in range(len(weights) - 1):
        dw = grad_norm2({k: weights[i + 1][k] - w for k, w in weights[i].items()})
        dg = grad_norm2({k: gradients[i + 1][k] - g for k, g in gradients[i].items()})
        if dw > 0:
            best = max(best, (dg / dw) ** 0.5)
    return best


def pl_constant(losses: Sequence[float], grad_norm2s: Sequence[float]) -> float:
    """Smallest ||G||^2 / (2 (f - f_best)) along a path: an upper estimate of mu, empirical."""
    f, g = np.asarray(losses, dtype=float), np.asarray(grad_norm2s, dtype=float)
    gap = f - f.min()
    if not (gap > 0).any():
        raise ValueError("the PL constant needs at least two different losses")
    return float((g[gap > 0] / (2 * gap[gap > 0])).min())


@contextmanager
def _weights(chain: ChainOfLora) -> Iterator[list[nn.Parameter]]:
    weights = [layer.weight for layer in chain.layers]
    before = [w.requires_grad for w in weights]
    try:
        for w in weights:
            w.requires_grad_(True)
        yield weights
    finally:
        for w, was in zip(weights, before, strict=True):
            w.requires_grad_(was)


def _hessian_norm(parameters: Sequence[nn.Parameter], closure: Closure, iters: int) -> float:
    check_number("iters", iters, least=1, whole=True)
    hessian = Hessian(closure(), parameters)
    generator = torch.Generator().manual_seed(0)
    start = torch.cat(
        [torch.randn(p.shape, generator=generator).to(p).reshape(-1) for p in parameters]
    )
    # Power iteration: Lanczos would keep as many copies of the weights as it makes products.
    return power_iteration(hessian, start, iters).value
