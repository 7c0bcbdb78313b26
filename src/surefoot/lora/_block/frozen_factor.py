"""Guard the frozen factor: it neither trains nor changes within a block, or the chain stops."""

from __future__ import annotations

from functools import lru_cache

import torch
from jaxtyping import Int
from torch import Tensor

from surefoot.lora._block.adapted_layer import AdaptedLayer
from surefoot.lora.config import Side
from surefoot.lora.errors import ChainStateError

INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


@lru_cache(maxsize=64)
def _places(count: int, device: torch.device) -> Int[Tensor, " count"]:
    return torch.arange(1, count + 1, device=device)


def checksum(tensor: Tensor) -> Int[Tensor, "2"]:
    """Two integers from a tensor's bits; a version counter would miss writes through `.data`."""
    flat = tensor.detach().contiguous().flatten()
    bits = flat.view(INTEGERS[flat.element_size()]).long()
    return torch.stack([bits.sum(), (bits * _places(len(bits), bits.device)).sum()])


class FrozenGuard:
    """Remembers what the frozen factors of the open block must be."""

    def __init__(self) -> None:
        self._layers: list[tuple[AdaptedLayer, Side]] = []
        self._sums: list[Tensor] = []

    def watch(self, layers: list[AdaptedLayer], side: Side | None) -> None:
        """Take the present values as those to keep; None watches nothing."""
        self._layers = [] if side is None else [(layer, side) for layer in layers]
        self._sums = [checksum(layer.parameter(s)) for layer, s in self._layers]

    def refreeze(self) -> None:
        """Switch gradients off again: set_adapter and others of PEFT switch them on."""
        for layer, side in self._layers:
            parameter = layer.parameter(side)
            parameter.requires_grad_(False)
            # A stale zero gradient would let weight decay and old moments move the factor.
            parameter.grad = None

    def verify(self) -> None:
        """Raise a ChainStateError naming a frozen factor that has changed."""
        if not self._layers:
            return
        now = [checksum(layer.parameter(side)) for layer, side in self._layers]
        for device in {s.device for s in now}:
            at = [i for i, s in enumerate(now) if s.device == device]
            # One comparison a device: on an accelerator each one waits for all the work before it.
            differ = torch.stack([now[i] != self._sums[i] for i in at]).any(dim=1).tolist()
            for i in (i for i, d in zip(at, differ, strict=True) if d):
                layer, side = self._layers[i]
                raise ChainStateError(
                    f"{layer.name}: the frozen factor lora_{side} has changed within a block; "
                    "something wrote to it or an optimizer stepped it. Give the optimizer "
                    "chain.trainable_parameters() or chain.param_groups(gamma) only"
                )
