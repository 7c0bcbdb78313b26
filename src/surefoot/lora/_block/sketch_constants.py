"""The constants lam and lam_max that a chain's sketches give the theorems."""

from __future__ import annotations

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
