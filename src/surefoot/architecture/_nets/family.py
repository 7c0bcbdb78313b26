"""What a batch of networks needs to know of its space."""

from __future__ import annotations

from typing import Protocol, runtime_checkable


@runtime_checkable
class Family(Protocol):
    """The shapes and activations of `MLPSpace`, of which this module must know no more."""

    @property
    def n_in(self) -> int:
        """Inputs D."""
        ...

    @property
    def n_out(self) -> int:
        """Outputs K."""
        ...

    @property
    def max_width(self) -> int:
        """Neurons of a hidden layer, at most: W."""
        ...

    @property
    def max_depth(self) -> int:
        """Hidden layers, at most: L."""
        ...

    @property
    def activations(self) -> tuple[str, ...]:
        """What a neuron can have: A."""
        ...


def shapes(space: Family, depth: int) -> list[tuple[int, int]]:
    """(inputs, outputs) of the depth + 1 weight matrices of a network."""
    W = space.max_width
    return [(space.n_in, W), *[(W, W)] * (depth - 1), (W, space.n_out)]
