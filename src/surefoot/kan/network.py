"""Several spline layers, one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from surefoot._numerics.arguments import checked
from surefoot.kan._edges.plot import plot_layers
from surefoot.kan.layer import KANLinear
from surefoot.kan.peers import Imported, read_efficient_kan_model, read_pykan_model

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


@checked
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

    @classmethod
    def from_pykan(cls, model: Any, **how: Any) -> KAN:
        """The same function as a pykan 0.2 `KAN`, which is only read.

        Parameters
        ----------
        model
            Without multiplication nodes, symbolic functions and dropped inputs. The affine maps of its nodes
            become weights and biases.
        **how
            `kernel` and `higher_order` of the layers.

        Raises
        ------
        ValueError
            It is no such model, has what KAN has not, or a grid that is not uniform.
        """
        return cls._of(read_pykan_model(model), how)

    @classmethod
    def from_efficient_kan(cls, model: Any, **how: Any) -> KAN:
        """The same function as efficient-kan's `KAN`, which is only read; `how` as in `from_pykan`.

        Raises
        ------
        ValueError
            It is no such model, or a grid is not uniform.
        """
        return cls._of(read_efficient_kan_model(model), how)

    @classmethod
    def _of(cls, found: Sequence[Imported], how: dict[str, Any]) -> KAN:
        model = cls.__new__(cls)
        nn.Sequential.__init__(model, *(KANLinear._of(one, **how) for one in found))
        return model

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

    def plot(self, x: Float[Tensor, "n in"] | None = None, *, most: int = 60) -> Figure:
        """The curve of every edge in one picture, layer after layer; where the data lie is shaded.

        Parameters
        ----------
        x
            Inputs of the model; without them the grids are shaded.
        most
            So many curves at the most: if there are more, those with the largest norm relative to their
            layer's, which the title says. Removed edges are not drawn.

        Raises
        ------
        ValueError
            An argument is out of range.
        """
        return plot_layers(list(self), x, most)

    def regularization(self, l1: float = 1.0, entropy: float = 1.0) -> Float[Tensor, ""]:
        """The sum over the layers."""
        return torch.stack([layer.regularization(l1, entropy) for layer in self.layers]).sum()
