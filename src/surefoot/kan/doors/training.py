"""How the estimators train: grids from the data, AdamW, a generator of their own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import cos, pi
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from surefoot.errors import NonFiniteError
from surefoot.kan.layer import KANLinear
from surefoot.kan.network import KAN

TAIL = 0.001
"""The share of the weight of the data that may lie beyond either end of a grid."""
MARGIN, HIDDEN_MARGIN = 0.01, 0.25
"""How much wider a grid is; hidden units move while they train."""


@dataclass(frozen=True)
class Training:
    """Settings of one fit, checked."""

    lr: float
    epochs: int
    batch_size: int
    weight_decay: float


def built(
    widths: list[int], x: Tensor, weight: Tensor, generator: torch.Generator, settings: dict[str, object]
) -> KAN:  # fmt: skip
    """A network whose grids fit the data. No generator of the process is read or moved."""
    # Weights on the meta device are no numbers: none is drawn.
    model = KAN(widths, device="meta", dtype=x.dtype, **settings)
    model.to_empty(device="cpu")
    for n, layer in enumerate(model.layers):
        layer.reset_parameters(generator)
        ends = torch.stack([weighted_quantile(x, weight, q) for q in (TAIL, 1 - TAIL)])
        layer.fit_grid(ends, quantile=0, margin=HIDDEN_MARGIN if n else MARGIN, keep=False)
        with torch.no_grad():
            x = layer(x)
    for layer in model.layers:
        forget(layer)
    return model


def forget(layer: KANLinear) -> None:
    """Count inputs outside the grid from here on."""
    layer._outside.restart()


def weighted_quantile(
    x: Float[Tensor, "n d"], weight: Float[Tensor, " n"], q: float
) -> Float[Tensor, " d"]:
    """The smallest value with a share q of the weight at or below it: repeating a row doubles its weight."""
    values, order = x.sort(0)
    total = weight[order].cumsum(0)
    # Half a rounding less, so that a sum in another order finds the same row.
    reached = total >= q * total[-1] * (1 - 1e-9)
    return values.gather(0, reached.int().argmax(0, keepdim=True))[0]


def trained(
    model: KAN, x: Tensor, y: Tensor, weight: Tensor, loss: Callable[[Tensor, Tensor], Tensor],
    how: Training, generator: torch.Generator,
) -> list[float]:  # fmt: skip
    """Train it in place, and return the mean loss of every epoch.

    Parameters
    ----------
    model
        As `built` makes it.
    x, y, weight
        Rows (n, d), targets (n, ..) and weights (n,) of positive sum.
    loss
        Of outputs and targets, one number a row.
    how
        The learning rate falls along half a cosine to 0.
    generator
        Shuffles.

    Raises
    ------
    NonFiniteError
        The loss or a weight is no number any more.
    """
    n = len(x)
    batch = min(how.batch_size, n)
    steps = how.epochs * -(-n // batch)
    optimizer = torch.optim.AdamW(model.parameters(), lr=how.lr, weight_decay=how.weight_decay)
    share = weight / weight.mean()
    curve, step = [], 0
    for _ in range(how.epochs):
        order: Sequence[Any] = [slice(None)]
        if batch < n:
            shuffled = torch.randperm(n, generator=generator)
            order = [shuffled[first : first + batch] for first in range(0, n, batch)]
        total = 0.0
        for rows in order:
            for group in optimizer.param_groups:
                group["lr"] = how.lr * (1 + cos(pi * step / steps)) / 2
            optimizer.zero_grad()
            each = share[rows] * loss(_outputs(model, x[rows], step, how), y[rows])
            torch.autograd.backward(each.mean())
            optimizer.step()
            found = float(each.detach().sum())
            if not abs(found) < float("inf"):
                raise NonFiniteError("the loss", step, found, advice=_advice(how))
            total += found
            step += 1
        curve.append(total / n)
    if not all(bool(torch.isfinite(p).all()) for p in model.parameters()):
        raise NonFiniteError("a weight", step, float("nan"), advice=_advice(how))
    return curve


def _advice(how: Training) -> str:
    return f"choose a smaller lr than {how.lr:g}"


def _outputs(model: KAN, x: Tensor, step: int, how: Training) -> Tensor:
    try:
        y: Tensor = model(x)
    except ValueError as error:
        # A layer refuses what is not finite, and the inputs of the network are.
        raise NonFiniteError("a hidden unit", step, float("nan"), advice=_advice(how)) from error
    return y
