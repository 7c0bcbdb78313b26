"""Where fits start: small dense networks of many shapes, and the linear model."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from surefoot.architecture._fit.network import Network

WIDTHS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)


def random_network(
    inputs: np.ndarray,
    n_out: int,
    widths: Sequence[int],
    activation: str,
    rng: np.random.Generator,
) -> Network:
    """Glorot's normal start, biases of the hidden layers uniform in [-1/2, 1/2].

    Parameters
    ----------
    inputs
        The columns to read.
    n_out
        Outputs.
    widths
        Of the hidden layers.
    activation
        Of all neurons.
    rng
        Draws it.
    """
    sizes = [len(inputs), *widths, n_out]
    weights, biases = [], []
    for i, (a, b) in enumerate(pairwise(sizes)):
        weights.append(rng.normal(size=(b, a)) * np.sqrt(2 / (a + b)))
        biases.append(rng.uniform(-0.5, 0.5, size=b) if i < len(widths) else np.zeros(b))
    return Network(inputs, tuple(weights), tuple(biases), tuple((activation,) * w for w in widths))


def shapes(max_width: int, max_depth: int) -> list[tuple[int, ...]]:
    """Hidden widths to try, in the order in which they are tried: middle sizes first."""
    widths = [w for w in WIDTHS if w < max_width] + [max_width]
    found: list[tuple[int, ...]] = [(w,) for w in widths]
    for depth in range(2, max_depth + 1):
        found += [(w,) * depth for w in widths if w > 1]
    return found
