"""The constants that the law of a chain's sketches gives the theorems."""

from __future__ import annotations

import math
from collections.abc import Iterator

from surefoot.lora._block.adapted_layer import AdaptedLayer
from surefoot.lora.config import PROJECTIONS, RacConfig, Side
from surefoot.lora.sketch import lambda_min

SAMPLES = 2000


def sketch_constants(config: RacConfig, layers: list[AdaptedLayer]) -> tuple[float, float, str]:
    """Smallest and largest eigenvalue over the layers, and how they are known."""
    if config.method == "fpft":
        return 1.0, 1.0, "exact: full gradients"
    found = [_of_layer(config, layer) for layer in layers]
    low, high = min(f for f in found), max(f for f in found)
    if callable(config.sketch):
        return low, max(high, low), f"Monte-Carlo, {SAMPLES} draws a layer"
    # lam_max <= 1 wherever H is a projection; a raw sketch may stretch beyond.
    return low, high, "exact: symmetric exchangeable entries"


def _of_layer(config: RacConfig, layer: AdaptedLayer) -> float:
    right, left = _of_side(config, layer, "B"), _of_side(config, layer, "A")
    if config.train == "alternate":
        return min(right, left)
    p = config.left_probability
    return p * left + (1 - p) * right


def _of_side(config: RacConfig, layer: AdaptedLayer, train: Side) -> float:
    d, r = layer.sampled_dim(train), layer.r
    p = config.left_probability
    if (train == "A" and p == 0) or (train == "B" and p == 1):
        return 0.0  # this side never comes up, and its rank may not even fit
    if callable(config.sketch):
        return lambda_min(config.sketch, d, r, samples=SAMPLES, seed=config.seed).value
    if config.precondition or config.sketch in PROJECTIONS:
        return r / d
    # E[S S^T] = r v I for entries of variance v.
    if config.sketch == "gaussian":
        return r / d if config.sketch_std is None else r * config.sketch_std**2
    return r * (1 / (3 * d) if config.sketch == "kaiming_uniform" else 1.0)


def sketch_stretch(config: RacConfig, layers: list[AdaptedLayer]) -> tuple[float, float] | None:
    """How far sketches stretch in the mean and at most, over the layers and sides; None for a callable.

    The mean is the smallest k with E[S^2] <= k E[S] for S = A^T A: one step of gamma k <= 1/L gains gamma/2
    tr(G E[S] G^T) in expectation, whatever single draws do. For r rows of d independent symmetric entries
    of variance v and fourth moment w it is w/v + (d + r - 2) v. The other number is the essential supremum
    of the largest eigenvalue, which further steps in a block need; it is infinite for Gaussian entries.
    Derived here.
    """
    if config.method == "fpft" or config.precondition or config.sketch in PROJECTIONS:
        return 1.0, 1.0
    if callable(config.sketch):
        return None
    found = [_stretch(config, d, r) for d, r in _sizes(config, layers)]
    return max(m for m, _ in found), max(s for _, s in found)


def _sizes(config: RacConfig, layers: list[AdaptedLayer]) -> Iterator[tuple[int, int]]:
    """(d, r) of every layer and side that comes up."""
    p = config.left_probability
    sides: tuple[Side, ...] = ("A",) if p == 1 else ("B",) if p == 0 else ("A", "B")
    for layer in layers:
        for side in sides:
            yield layer.sampled_dim(side), layer.r


def _stretch(config: RacConfig, d: int, r: int) -> tuple[float, float]:
    if config.sketch == "gaussian":
        v = 1 / d if config.sketch_std is None else config.sketch_std**2
        return v * (d + r + 1), math.inf
    if config.sketch == "kaiming_uniform":
        # Entries in [-1, 1] / sqrt(d): the largest eigenvalue is at most the sum of their squares.
        return (d + r - 0.2) / (3 * d), float(r)
    # Rademacher, redrawn until it has full rank. A draw that is thrown away has tr(S^2) >= (r d)^2 / (r - 1),
    # at least the mean r d (d + r - 1) where d >= (r - 1)^2: without such draws the mean is smaller.
    mean = d + r - 1 if r == 1 or d >= (r - 1) ** 2 else r * d
    return float(min(mean, r * d)), float(r * d)


def smallest_share(config: RacConfig, layers: list[AdaptedLayer]) -> float:
    """The smallest r/d over the layers and the sides that come up."""
    return 1.0 if config.method == "fpft" else min(r / d for d, r in _sizes(config, layers))
