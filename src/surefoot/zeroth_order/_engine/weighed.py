"""What the descent theorem of a private run is about, by the gradient of every example."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from surefoot._numerics.sizes import wide
from surefoot.zeroth_order._engine.directions import Directions
from surefoot.zeroth_order._engine.tensors import TrainedTensor
from surefoot.zeroth_order.private_bounds import weight_of


def weighed_gradient(
    directions: Directions,
    losses: Callable[[], Float[Tensor, " examples"]],
    clip: float,
    *,
    chunk: int = 64,
) -> float:
    """G^T S_V Gbar at the iterate: the quantity of the descent theorem of a private run, by autograd.

    G is the mean gradient of the examples, Gbar that of the examples weighed by what the clip leaves of each
    (`private_bounds.weight_of`), S_V the covariance of the coming step's direction given its V. It is a query
    of the data that no noise covers.

    Parameters
    ----------
    directions
        Of a run at the iterate, whose V is that of the coming step.
    losses
        One loss an example, over all data.
    clip
        C.
    chunk
        How many gradients are held at a time.
    """
    moving = [x for x in directions.tensors if not x.frozen]
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
            _seen(wide(g).double(), x, directions.scale_of(x)[0])
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
