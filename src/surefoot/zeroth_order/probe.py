"""The constants of the bound on a model at hand: measured where autograd fits, probed by forwards else."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from surefoot._numerics.curvature import Hessian, hutchinson_trace, power_iteration
from surefoot._numerics.sizes import wide
from surefoot.zeroth_order._engine.evaluation import eps_of
from surefoot.zeroth_order._engine.private_checks import no_privacy
from surefoot.zeroth_order.optimizer import ZerothOrder

Loss = Callable[[], Tensor]


def smoothness(
    loss: Loss, parameters: Sequence[Tensor], *, iterations: int = 20, seed: int = 0
) -> float:
    """|lambda|_max of the Hessian by power iteration: a lower estimate of L, measured by autograd.

    Parameters
    ----------
    loss, parameters
        A twice differentiable loss, and what it is a function of.
    iterations, seed
        Of the power iteration.
    """
    generator = torch.Generator().manual_seed(seed)
    v = [torch.randn(p.shape, generator=generator, dtype=p.dtype).to(p.device) for p in parameters]
    # Power iteration: Lanczos would keep as many copies of the model as it makes products.
    start = torch.cat([x.reshape(-1) for x in v])
    return power_iteration(Hessian(loss(), parameters), start, iterations).value


@torch.no_grad()
def curvature_probe(
    optimizer: ZerothOrder, closure: Callable[[], object], *, draws: int = 8
) -> float:
    """max over directions of |F(+) + F(-) - 2 F(0)| / (eps^2 ||Z||^2): a probe of L, forward passes only.

    Uses the directions of the coming steps; the optimiser is left as it was.

    Parameters
    ----------
    optimizer, closure
        A zeroth-order optimizer between two steps, and the loss of one batch.
    draws
        How many directions.
    """
    no_privacy(optimizer.privacy, "curvature_probe")
    directions, loss = optimizer.engine.directions, optimizer.engine.losses
    eps = eps_of(directions)
    directions.begin_period(optimizer.engine.rule.renewed)
    directions.release()
    middle = loss(closure)
    start, largest = directions.t, 0.0
    for k in range(draws):
        directions.t = start - start % optimizer.nu + k % optimizer.nu
        norm = 0.0
        for tensor in optimizer.tensors:
            u = directions.draw(tensor, 0)
            scale = directions.scale_of(tensor)[0]
            z = u if tensor.v is None else scale * u @ tensor.v.to(u).T
            norm += float(z.double().square().sum())
        directions.place(0, 1.0)
        plus = loss(closure)
        directions.place(0, -1.0)
        minus = loss(closure)
        directions.release()
        largest = max(largest, abs(plus + minus - 2 * middle) / (eps**2 * norm))
    directions.t = start
    return largest


def gradient_noise(gradients: Float[Tensor, "batches P"]) -> float:
    """E||g - mean||^2 of minibatch gradients, unbiased: sigma^2."""
    gradients = wide(gradients)
    centred = gradients - gradients.mean(dim=0)
    return float(centred.square().sum() / (len(gradients) - 1))


def trace(loss: Loss, parameters: Sequence[Tensor], *, draws: int = 16, seed: int = 0) -> float:
    """tr H by Hutchinson's estimator, by autograd.

    Parameters
    ----------
    loss, parameters
        A twice differentiable loss, and what it is a function of.
    draws, seed
        Of the random signs.
    """
    hessian = Hessian(loss(), parameters)
    found, _ = hutchinson_trace(
        hessian,
        hessian.size,
        draws,
        generator=torch.Generator().manual_seed(seed),
        dtype=parameters[0].dtype,
        device=parameters[0].device,
    )
    return found
