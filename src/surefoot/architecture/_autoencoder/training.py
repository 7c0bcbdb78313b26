"""Training of the autoencoder on networks that are drawn afresh at every step."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from surefoot._numerics.seeds import generator_for
from surefoot.architecture._autoencoder.loss import Loss, decoder_errors, functional_loss
from surefoot.architecture._budget import Budget
from surefoot.architecture.net_batch import NetBatch
from surefoot.architecture.space import MLPSpace
from surefoot.record import Record

Recipe = Literal["default", "paper"]
RECIPES: tuple[Recipe, ...] = ("default", "paper")
Callback = Callable[[int, float], object]
NETS, POINTS = 32, 128
LR, LAST_LR, CLIP = 1e-3, 1e-5, 1.0
PAPER_LR, PAPER_NETS, HALVINGS = 1e-4, 8, 5


@runtime_checkable
class Trained(Protocol):
    """What of an autoencoder the training needs."""

    space: MLPSpace
    winner_weight: float
    all_weight: float
    loss: Loss
    sort_neurons: bool

    def parameters(self) -> object:
        """What is trained."""
        ...

    def embed(self, nets: NetBatch) -> Tensor:
        """Embeddings, with gradients."""
        ...

    def decode_soft(self, z: Tensor, depth: int) -> NetBatch:
        """Networks, with gradients through the gates."""
        ...


def learning_rate(spent: float, recipe: Recipe) -> float:
    """Cosine from 1e-3 to 1e-5; the paper's 1e-4, halved after every fifth of the run.

    Parameters
    ----------
    spent : float
        The fraction of the budget that is spent.
    recipe : "default" or "paper"
        See `NetworkAutoencoder.fit`.
    """
    if recipe == "paper":
        return PAPER_LR * 0.5 ** min(int(spent * HALVINGS), HALVINGS - 1)
    return LAST_LR + (LR - LAST_LR) * (1 + math.cos(math.pi * spent)) / 2


def batch_of(
    space: MLPSpace, recipe: Recipe, generator: torch.Generator, sort: bool
) -> tuple[list[NetBatch], Float[Tensor, "P D"]]:
    """The networks of a step, by depth, and the inputs at which they are compared.

    Parameters
    ----------
    space : MLPSpace
        Of the networks.
    recipe : "default" or "paper"
        32 networks a depth at 128 fresh inputs; or 4 depths of random ones, 8 networks each, on the grid.
    generator : torch.Generator
        Draws them.
    sort : bool
        Whether neurons are in canonical order.
    """
    if recipe == "paper":
        drawn = torch.randint(1, space.max_depth + 1, (4,), generator=generator).tolist()
        nets = [space.sample(PAPER_NETS, d, generator) for d in sorted(drawn)]
        x = space.grid()
    else:
        nets = [space.sample(NETS, d, generator) for d in range(1, space.max_depth + 1)]
        x = space.sample_inputs(POINTS, generator)
    return [n.canonical() for n in nets] if sort else nets, x


def train(
    model: Trained,
    parameters: list[Tensor],
    budget: Budget,
    *,
    seed: int,
    recipe: Recipe,
    callback: Callback | None,
    record: Record,
    every: int = 10,
) -> None:
    """Adam on `functional_loss`; its values go into the record every few steps.

    Parameters
    ----------
    model : Trained
        The autoencoder.
    parameters : list of Tensor
        What is trained.
    budget : Budget
        How long.
    seed : int
        Of the networks and inputs.
    recipe : "default" or "paper"
        As in `batch_of` and `learning_rate`; the default clips gradients to norm 1.
    callback : callable, optional
        Called with the step and its loss; training stops if it returns True.
    record : Record
        Gets the column loss.
    every : int
        Steps between its rows.

    Raises
    ------
    ArithmeticError
        The loss is not finite; nothing was changed by that step.
    """
    generator = generator_for("surefoot.architecture training", seed)
    optimizer = torch.optim.Adam(parameters, lr=LR, fused=True)
    for spent in budget:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(spent, recipe)
        batches, x = batch_of(model.space, recipe, generator, model.sort_neurons)
        with torch.no_grad():
            y = torch.cat([nets(x) for nets in batches])
        z = torch.cat([model.embed(nets) for nets in batches])
        e = decoder_errors(model.decode_soft, z, x, y, model.space.max_depth, model.loss)
        loss = functional_loss(e, model.winner_weight, model.all_weight)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise ArithmeticError(
                f"the loss of the autoencoder is {value} at step {budget.done}; its parameters are those "
                "of the step before"
            )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        if recipe == "default":
            torch.nn.utils.clip_grad_norm_(parameters, CLIP)
        optimizer.step()
        if budget.done % every == 0:
            record.append(seed, budget.done, loss=value)
        if callback is not None and callback(budget.done, value) is True:
            return
