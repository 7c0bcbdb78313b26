"""The factors of past blocks, from which the result can be rebuilt on the original base."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from surefoot.lora._block.adapted_layer import AdaptedLayer, other
from surefoot.lora.config import KeepHistory, Side


@dataclass
class PastBlock:
    """One merged block: number, trained side, and factors by (layer, "A" or "B") on the CPU."""

    block: int
    trained: Side | None
    factors: dict[tuple[str, Side], Tensor] = field(default_factory=dict)


class History:
    """Past blocks; "seeds" drops frozen factors, which a sketch seed gives back."""

    def __init__(self, keep: KeepHistory) -> None:
        self.keep = keep
        self.blocks: list[PastBlock] = []

    def __len__(self) -> int:
        return len(self.blocks)

    def __iter__(self) -> Iterator[PastBlock]:
        return iter(self.blocks)

    def add(self, block: int, trained: Side | None, layers: list[AdaptedLayer]) -> None:
        """Copy the factors of the block that is about to be merged."""
        if self.keep == "none":
            return
        sides: tuple[Side, ...] = ("A", "B")
        if self.keep == "seeds" and trained is not None:
            sides = (trained,)
        past = PastBlock(block, trained)
        for layer in layers:
            for side in sides:
                matrix = layer.A if side == "A" else layer.B
                past.factors[layer.name, side] = matrix.detach().to("cpu", copy=True).contiguous()
        self.blocks.append(past)


def bytes_per_block(layers: list[AdaptedLayer], keep: KeepHistory, trained: Side | None) -> int:
    """Memory that one block adds to the history, in bytes."""
    if keep == "none":
        return 0
    total = 0
    for layer in layers:
        sides: list[Side] = ["A", "B"]
        if keep == "seeds" and trained is not None:
            sides.remove(other(trained))
        for side in sides:
            rows, columns = layer.shape(side)
            total += rows * columns * torch.finfo(layer.A.dtype).bits // 8
    return total
