"""Which calls of `chain.step` had a step of the optimizer before them: a scaler may have skipped it."""

from __future__ import annotations

import threading
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

Tensors = dict[int, weakref.ref[Tensor]]


class StepWatch:
    """Sees every optimizer's step that moves a tensor of an adapted layer.

    It looks from the start, as a chain meets its optimizer only after the first step; and it sees the step of
    the optimizer that moves the weights, inside whatever wraps it. Optimizers that hold nothing of the chain
    go on as if it were not there, also where its layers are gone.

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
        self._mine: Tensors | None = None
        _watch(self)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_mine": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        _watch(self)

    def stale(self) -> None:
        """Tensors of the model may have been replaced since this last looked."""
        self._mine = None

    def begins(self, optimizer: Any, kwargs: dict[str, Any]) -> None:
        """Before an optimizer's step."""
        if self._concerns(optimizer) and not is_skipped(optimizer):
            self.before(held_scale(optimizer, kwargs))

    def ended(self, optimizer: Any) -> None:
        """After an optimizer's step."""
        if self._concerns(optimizer) and not is_skipped(optimizer):
            self.seen = self._ever = True

    def _concerns(self, optimizer: Any) -> bool:
        if self._mine is None:
            self._mine = _tensors(self.layers)
        mine = self._mine
        for group in getattr(optimizer, "param_groups", ()):
            for p in group["params"]:
                # The number of a tensor that is gone may be that of another one now.
                if (found := mine.get(id(p))) is not None and found() is p:
                    return all(x.is_there for x in self.layers)
        return False

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


def _tensors(layers: list[AdaptedLayer]) -> Tensors:
    found: Tensors = {}
    for layer in layers:
        if layer.is_there:
            for p in (layer.parameter("A"), layer.parameter("B"), layer.weight_or_none):
                if p is not None:
                    found[id(p)] = weakref.ref(p)
    return found


# One pair of torch's hooks for the process, that stays: a hook taken away while torch goes through them, as
# the garbage collector may do in any step, breaks that step. The tuple is replaced, never changed.
_watches: tuple[weakref.ref[StepWatch], ...] = ()
_adding = threading.Lock()
_hooks: list[Any] = []


def _watch(watch: StepWatch) -> None:
    global _watches
    with _adding:
        _watches = (*(ref for ref in _watches if ref() is not None), weakref.ref(watch))
        if not _hooks:
            _hooks.append(torch_optimizers.register_optimizer_step_pre_hook(_begins))
            _hooks.append(torch_optimizers.register_optimizer_step_post_hook(_ended))


def _begins(optimizer: Any, args: Any, kwargs: dict[str, Any]) -> None:
    if torch.compiler.is_compiling():
        return
    for ref in _watches:
        if (found := ref()) is not None:
            found.begins(optimizer, kwargs)


def _ended(optimizer: Any, args: Any, kwargs: dict[str, Any]) -> None:
    if torch.compiler.is_compiling():
        return
    for ref in _watches:
        if (found := ref()) is not None:
            found.ended(optimizer)
