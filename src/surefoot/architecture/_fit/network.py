"""A small network in float64 on standardised columns, as the fitting works on it: plain arrays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import torch
from jaxtyping import Float64, Int64
from numpy.typing import NDArray

# Shapes are not checked here: it would take longer than the sums.
Array = NDArray[np.float64]
Names = tuple[tuple[str, ...], ...]


@dataclass(frozen=True, eq=False)
class Network:
    """h_0 = x[inputs], h_i = act(W_i h_(i-1) + b_i), f = W h + b; arrays have one column a row of the data.

    Attributes
    ----------
    inputs
        (k_0,) the columns that are read.
    weights
        One (k_i, k_(i-1)) array a layer, as `nn.Linear` holds them.
    biases
        One (k_i,) array a layer.
    activations
        The name of every hidden neuron, equal ones side by side.
    """

    inputs: Int64[np.ndarray, " k"]
    weights: tuple[Array, ...]
    biases: tuple[Array, ...]
    activations: Names

    @property
    def depth(self) -> int:
        """How many hidden layers."""
        return len(self.activations)

    @property
    def widths(self) -> tuple[int, ...]:
        """Neurons of the hidden layers."""
        return tuple(len(names) for names in self.activations)

    @property
    def n_params(self) -> int:
        """Stored numbers."""
        return sum(w.size + b.size for w, b in zip(self.weights, self.biases, strict=True))

    def forward(self, x: Float64[np.ndarray, "rows features"]) -> Float64[np.ndarray, "rows out"]:
        """f of every row of standardised x, all columns of it."""
        return self.layers(np.ascontiguousarray(x.T[self.inputs]))[-1].T

    def layers(self, h: Array) -> list[Array]:
        """The selected inputs, the activations of every layer and the output; one column a row of data."""
        found = [h]
        for i, (w, b) in enumerate(zip(self.weights, self.biases, strict=True)):
            z = w @ found[-1]
            z += b[:, None]
            if i < self.depth:
                activate(z, self.activations[i])
            found.append(z)
        return found

    def pattern(self) -> list[Array]:
        """1 where an entry is not zero: weights and biases of the layers in turn."""
        return [
            (part != 0).astype(np.float64)
            for pair in zip(self.weights, self.biases, strict=True)
            for part in pair
        ]

    def with_parts(self, weights: Sequence[Array], biases: Sequence[Array]) -> Network:
        """The same shape with other numbers."""
        return replace(self, weights=tuple(weights), biases=tuple(biases))


@cache
def blocks(names: tuple[str, ...]) -> tuple[tuple[str, int, int], ...]:
    """(name, start, stop) of each run of equal names."""
    found, start = [], 0
    for i in range(1, len(names) + 1):
        if i == len(names) or names[i] != names[start]:
            found.append((names[start], start, i))
            start = i
    return tuple(found)


def _leaky(slope: float, z: Array) -> None:
    np.maximum(z, slope * z, out=z)


# In place; tanh of torch is three times as fast as NumPy's.
FORWARD: dict[str, Callable[[Array], object]] = {
    "tanh": lambda z: torch.tanh_(torch.from_numpy(z)),
    "sigmoid": lambda z: torch.sigmoid_(torch.from_numpy(z)),
    "relu": lambda z: np.maximum(z, 0, out=z),
    "leaky_relu": lambda z: _leaky(0.01, z),
    "leaky_relu_0.1": lambda z: _leaky(0.1, z),
    "identity": lambda z: None,
}
# act'(z) as a function of h = act(z).
SLOPE: dict[str, Callable[[Array], Array]] = {
    "tanh": lambda h: 1 - h * h,
    "sigmoid": lambda h: h * (1 - h),
    "relu": lambda h: (h > 0).astype(np.float64),
    "leaky_relu": lambda h: np.where(h > 0, 1.0, 0.01),
    "leaky_relu_0.1": lambda h: np.where(h > 0, 1.0, 0.1),
}


def activate(z: Array, names: tuple[str, ...]) -> None:
    """act(z) in place, each row of z by its own name."""
    for name, start, stop in blocks(names):
        FORWARD[name](z[start:stop])


def times_slope(d: Array, h: Array, names: tuple[str, ...]) -> None:
    """d times act'(z) in place, given h = act(z)."""
    for name, start, stop in blocks(names):
        if name != "identity":
            d[start:stop] *= SLOPE[name](h[start:stop])
