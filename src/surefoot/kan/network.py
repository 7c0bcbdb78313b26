"""Several spline layers, one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from surefoot.kan.layer import KANLinear


class KAN(nn.Sequential):
    """Spline layers of the given widths.

    Parameters
    ----------
    widths
        Inputs, hidden layers and outputs: `KAN([2, 16, 1])`.
    **layer_kwargs
        Of every `KANLinear`.

    Raises
    ------
    ValueError
        There are fewer than two widths, or an argument is out of range.
    """

    def __init__(self, widths: Sequence[int], **layer_kwargs: Any) -> None:
        if len(widths) < 2:
            raise ValueError(f"widths must name inputs and outputs at least, got {list(widths)}")
        super().__init__(*(KANLinear(a, b, **layer_kwargs) for a, b in pairwise(widths)))

    def __getitem__(self, index: int | slice) -> Any:
        # A slice of nn.Sequential would be built by our own constructor.
        return (
            nn.Sequential(*list(self)[index])
            if isinstance(index, slice)
            else super().__getitem__(index)
        )

    @property
    def layers(self) -> list[KANLinear]:
        """The layers in their order."""
        return [layer for layer in self if isinstance(layer, KANLinear)]

    def fit_grid(self, x: Float[Tensor, "n in"], **how: Any) -> KAN:
        """Fit the grid of each layer in turn, to what the fitted layers before it make of x; in place."""
        with torch.no_grad():
            for layer in self.layers:
                x = layer.fit_grid(x, **how)(x)
        return self

    def refine(self, grid_size: int) -> KAN:
        """Refine every layer, in place; make a new optimizer afterwards."""
        for layer in self.layers:
            layer.refine(grid_size)
        return self

    def regularization(self, l1: float = 1.0, entropy: float = 1.0) -> Float[Tensor, ""]:
        """The sum over the layers."""
        return torch.stack([layer.regularization(l1, entropy) for layer in self.layers]).sum()
