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
from surefoot.zeroth_order._engine.tensors import TrainedTensor
from surefoot.zeroth_order.optimizer import ZerothOrder
from surefoot.zeroth_order.private_bounds import weight_of

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


def weighed_gradient(
    optimizer: ZerothOrder, losses: Callable[[], Float[Tensor, " examples"]], *, chunk: int = 64
) -> float:
    """G^T S_V Gbar at the iterate: the quantity of the descent theorem of a private run, by autograd.

    G is the mean gradient of the examples, Gbar that of the examples weighed by what the clip leaves of each
    (`private_bounds.weight_of`), S_V the covariance of the coming step's direction given its V. It is a
    query of the data that no noise covers.

    Parameters
    ----------
    optimizer
        With privacy, between two steps.
    losses
        One loss an example, over all data.
    chunk
        How many gradients are held at a time.

    Raises
    ------
    ValueError
        Without privacy.
    """
    if optimizer.privacy is None:
        raise ValueError(
            "weighed_gradient needs an optimizer with privacy: nothing is clipped without"
        )
    directions, clip = optimizer.engine.directions, optimizer.privacy.clip
    directions.begin_period(optimizer.engine.rule.renewed)
    directions.release()
    moving = [x for x in optimizer.tensors if not x.frozen]
    with torch.enable_grad():
        each = losses()
        rows = torch.split(torch.eye(len(each), dtype=each.dtype, device=each.device), chunk)
        found = [
            torch.autograd.grad(
                each, [x.param for x in moving], some, is_grads_batched=True, retain_graph=True,
                allow_unused=True, materialize_grads=True,
            )
            for some in rows
        ]  # fmt: skip
    wholes, weigheds = [], []
    for gradients in found:
        seen = [
            _seen(g.double(), x, directions.scale_of(x)[0])
            for x, g in zip(moving, gradients, strict=True)
        ]
        projected = torch.cat(seen, dim=1)
        squares = projected.square().sum(1).tolist()
        weights = torch.tensor([weight_of(clip, s) for s in squares], dtype=torch.float64)
        wholes.append(projected.sum(0))
        weigheds.append(weights @ projected)
    product = torch.stack(wholes).sum(0) @ torch.stack(weigheds).sum(0)
    return float(product) / len(each) ** 2


def _seen(gradients: Tensor, tensor: TrainedTensor, scale: float) -> Float[Tensor, "examples seen"]:
    """What a direction sees of gradients: their products with V, or all of them."""
    if tensor.v is None:
        return gradients.flatten(1)
    shaped = gradients.reshape(len(gradients), tensor.m, tensor.n)
    return (scale * (shaped @ tensor.v.to(shaped))).flatten(1)


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
