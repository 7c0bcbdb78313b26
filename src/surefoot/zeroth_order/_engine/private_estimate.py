"""c of every example of a micro-batch, and what a private run must not evaluate with."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from surefoot.zeroth_order._engine.directions import Directions
from surefoot.zeroth_order._engine.evaluation import Evaluation, Losses
from surefoot.zeroth_order._engine.paired.copies import leaves
from surefoot.zeroth_order._engine.settings import Settings

DRAWS = (
    "the closure draws random numbers (dropout), and which ones an example gets depends on the others of its "
    "batch: call model.eval() first"
)


@runtime_checkable
class Estimating(Protocol):
    """What is asked of the engine of a private run."""

    directions: Directions
    losses: Losses
    settings: Settings

    @property
    def evaluation(self) -> Evaluation:
        """How the losses of a step are evaluated."""

    def begin_step(self) -> None:
        """Draw V where a period starts."""

    def abandon(self) -> None:
        """Back to the iterate."""


def is_empty(batch: Any) -> bool:
    """Whether a batch has no rows: [], or tensors none of which has one."""
    if batch is None:
        return False
    tensors = [x for x in leaves(batch) if isinstance(x, Tensor) and x.ndim]
    if not tensors:
        return isinstance(batch, (list, tuple, dict)) and not len(batch)
    return all(not x.shape[0] for x in tensors)


def check_model(model: nn.Module) -> None:
    """Refuse modules in which the loss of an example depends on its neighbours.

    Raises
    ------
    ValueError
        Naming the first such module.
    """
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and (
            module.training or module.running_mean is None
        ):
            raise ValueError(
                f"{name or 'the model'} normalises over its batch, so that an example's loss depends on the "
                "others and no clip bounds what it adds: call model.eval(), or use GroupNorm"
            )
        if isinstance(module, nn.modules.dropout._DropoutNd) and module.training and module.p:
            raise ValueError(f"{name or 'the model'} is active dropout: {DRAWS}")


def estimate_each(
    engine: Estimating, closure: Callable[..., Any], batch: Any
) -> Float[Tensor, "examples directions"]:
    """c of each example in each direction.

    Parameters
    ----------
    engine
        Of a private run.
    closure, batch
        Returns one loss an example; what it is called with, or None.

    Raises
    ------
    ValueError
        The closure returns anything else, draws random numbers, or mixes examples by a module known to.
    """
    directions, losses = engine.directions, engine.losses
    count = engine.settings.num_directions
    if is_empty(batch):
        engine.begin_step()
        return torch.zeros(0, count, dtype=torch.float64)
    if losses.model is not None:
        check_model(losses.model)
    once = closure if batch is None else functools.partial(closure, batch)
    sizes: set[int] = set()

    def each() -> Any:
        lost = losses(once)
        sizes.add(len(lost))
        if len(sizes) > 1:
            engine.abandon()
            raise ValueError(
                f"the closure returned {sorted(sizes)} losses for one batch: it must return one for each of "
                "the same examples every time"
            )
        return lost

    with losses.together(once) as same:
        losses.prefix.look(lambda: losses.raw(once))
        engine.begin_step()
        found = engine.evaluation(each, directions)
        if same.drew:
            engine.abandon()
            raise ValueError(DRAWS)
    return torch.stack([torch.as_tensor(f.c) for f in found], dim=1)
