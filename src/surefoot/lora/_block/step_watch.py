"""Which calls of `chain.step` had a step of the optimizer before them: a scaler may have skipped it."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import optimizer as torch_optimizers

from surefoot._numerics.loss_scale import held_scale, is_skipped
from surefoot.lora._block.adapted_layer import AdaptedLayer
from surefoot.lora._block.frozen_factor import checksum
from surefoot.lora.config import Side


class StepWatch:
    """Hooks of torch on every optimizer's step, for those that hold a tensor of an adapted layer.

    They are there from the start, as a chain meets its optimizer only after the first step; and they see
    the step of the optimizer that moves the weights, inside whatever wraps it.

    Parameters
    ----------
    layers
        Of the chain.
    before
        Called with the scale that gradients still carry, before a step that will be taken.
    """

    def __init__(self, layers: list[AdaptedLayer], before: Callable[[float], None]) -> None:
        self.layers = layers
        self.before = before
        self.seen = False
        self._ever = False
        self._sums: Tensor | None = None
        self._register()

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._register()

    def _register(self) -> None:
        # torch keeps these hooks for as long as the process lives, so they must not keep a chain.
        me = weakref.ref(self)

        def begins(optimizer: Any, args: Any, kwargs: dict[str, Any]) -> None:
            found = me()
            if found is not None and found._concerns(optimizer) and not is_skipped(optimizer):
                found.before(held_scale(optimizer, kwargs))

        def ended(optimizer: Any, args: Any, kwargs: dict[str, Any]) -> None:
            found = me()
            if found is not None and found._concerns(optimizer) and not is_skipped(optimizer):
                found.seen = found._ever = True

        handles = (
            torch_optimizers.register_optimizer_step_pre_hook(begins),
            torch_optimizers.register_optimizer_step_post_hook(ended),
        )
        for handle in handles:
            weakref.finalize(self, handle.remove)

    def _concerns(self, optimizer: Any) -> bool:
        mine = {
            id(p)
            for x in self.layers
            for p in (x.parameter("A"), x.parameter("B"), x.weight_or_none)
        }
        return any(id(p) in mine for group in optimizer.param_groups for p in group["params"])

    def was_taken(self, side: Side, weights: bool) -> bool:
        """Whether there was a step since this was last asked.

        Where hooks never saw one (compiled steps, optimizers that are not torch's), a factor that moved
        tells.

        Parameters
        ----------
        side
            The factor of the open block that began at zero.
        weights
            Whether the weights themselves are trained.
        """
        seen, self.seen = self.seen, False
        if seen or self._ever:
            return seen
        moving = [x.weight if weights else x.parameter(side) for x in self.layers]
        before, self._sums = self._sums, torch.stack([checksum(p).cpu() for p in moving])
        if before is not None:
            return not torch.equal(before, self._sums)
        return weights or any(bool(p.detach().any()) for p in moving)

    def restarted(self) -> None:
        """A block was opened: its factors are others."""
        self._sums = None
