"""Standardisation in float64, and its folding into the first and the last Linear."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float64
from torch import nn

from surefoot.architecture._fit.network import Array, Network
from surefoot.architecture.compaction import module_of
from surefoot.architecture.guarantee import EXACT

LARGEST, SMALLEST = 4e307, 1e-290
"""Entries whose differences are finite, and spreads by which weights may be divided."""


@dataclass(frozen=True)
class Standardisation:
    """Means and scales of the columns of x and y, in float64.

    Attributes
    ----------
    mean
        (features,)
    scale
        (features,) positive; 1 where a column is constant.
    varies
        (features,) whether a column is none.
    y_mean
        (outputs,)
    y_scale
        (outputs,) positive.
    """

    mean: Float64[np.ndarray, " features"]
    scale: Float64[np.ndarray, " features"]
    varies: np.ndarray
    y_mean: Float64[np.ndarray, " outputs"]
    y_scale: Float64[np.ndarray, " outputs"]

    def inputs(self, x: Float64[np.ndarray, "n features"]) -> Float64[np.ndarray, "n features"]:
        """Columns of mean 0 and standard deviation 1; constant ones 0."""
        return np.asarray(np.where(self.varies, (x - self.mean) / self.scale, 0.0))

    def outputs(self, y: Float64[np.ndarray, "n outputs"]) -> Float64[np.ndarray, "n outputs"]:
        """Targets of mean 0 and standard deviation 1."""
        return np.asarray((y - self.y_mean) / self.y_scale)


def standardisation(x: Array, y: Array | None, n_outputs: int, weight: Array) -> Standardisation:
    """Weighted means and standard deviations; y None: outputs stay as they are.

    Parameters
    ----------
    x
        (n, features)
    y
        (n, outputs) targets of a regression, or None.
    n_outputs
        Columns of the output.
    weight
        (n,) with sum 1.

    Raises
    ------
    ValueError
        Differences of entries, or weights on a column, would not be finite.
    """
    mean, scale, varies = _moments(x, weight, "X")
    if y is None:
        return Standardisation(mean, scale, varies, np.zeros(n_outputs), np.ones(n_outputs))
    y_mean, y_scale, _ = _moments(y, weight, "y")
    return Standardisation(mean, scale, varies, y_mean, y_scale)


def _moments(x: Array, weight: Array, name: str) -> tuple[Array, Array, np.ndarray]:
    # By the largest entry first: squares of 1e200 are infinite.
    size = np.abs(x).max(axis=0, initial=0.0)
    if (size > LARGEST).any():
        j = int(size.argmax())
        raise ValueError(f"{name} must be at most {LARGEST:.0e}, got {size[j]:.3g} in column {j}")
    size = np.where(size > 0, size, 1.0)
    unit = x / size
    mean = weight @ unit
    centred = unit - mean
    # Once more: the mean of 1e6 + noise is rounded as 1e6 is.
    shift = weight @ centred
    std = np.sqrt(weight @ (centred - shift) ** 2)
    varies = (std > 8 * np.finfo(float).eps) & (unit.max(axis=0) > unit.min(axis=0))
    scale = np.where(varies, std * size, 1.0)
    if (scale < SMALLEST).any():
        j = int(scale.argmin())
        raise ValueError(
            f"column {j} of {name} must vary by at least {SMALLEST:.0e}, or a weight on it is infinite; its "
            f"standard deviation is {scale[j]:.3g}: give it in another unit"
        )
    return (mean + shift) * size, scale, varies


def fold(network: Network, by: Standardisation) -> Network:
    """The network on raw rows with outputs in raw units.

    Parameters
    ----------
    network
        On standardised rows.
    by
        What they were standardised with.
    """
    weights, biases = list(network.weights), list(network.biases)
    weights[0] = weights[0] / by.scale[network.inputs]
    biases[0] = biases[0] - weights[0] @ by.mean[network.inputs]
    weights[-1] = weights[-1] * by.y_scale[:, None]
    biases[-1] = biases[-1] * by.y_scale + by.y_mean
    return replace(network, weights=tuple(weights), biases=tuple(biases))


def run_module(
    module: nn.Module, x: Float64[np.ndarray, "n k"]
) -> Float64[np.ndarray, "n outputs"]:
    """The module's outputs on rows, computed in its own dtype and returned in float64."""
    dtype = next(module.parameters()).dtype
    # A copy: torch takes no array that is read backwards, and warns of one that is read-only.
    rows = torch.from_numpy(np.array(x, dtype=np.float64, order="C")).to(dtype)
    with torch.no_grad():
        found: np.ndarray = module(rows).to(torch.float64).numpy()
    return found


def folding_deviation(
    module: nn.Module, network: Network, by: Standardisation, x: Float64[np.ndarray, "n features"]
) -> float:
    """max |module(x) - f| / max(1, |f|) in standardised outputs, f the network on standardised rows.

    Parameters
    ----------
    module
        On raw rows.
    network
        In float64, on standardised rows.
    by
        The standardisation.
    x
        (n, features) raw rows.
    """
    f = network.forward(by.inputs(x))
    with np.errstate(over="ignore", invalid="ignore"):
        off = np.abs(by.outputs(run_module(module, x)) - f) / np.maximum(1, np.abs(f))
    return float(off.max(initial=0.0)) if np.isfinite(off).all() else float("inf")


def folded_module(
    network: Network, by: Standardisation, x: Float64[np.ndarray, "n features"]
) -> tuple[nn.Sequential, float]:
    """The module on raw rows, in float32 if that computes the same on `x`, else float64; its deviation.

    Parameters
    ----------
    network
        In float64, on standardised rows.
    by
        The standardisation.
    x
        (n, features) raw rows to check on.
    """
    raw, n_features = fold(network, by), len(by.mean)
    with np.errstate(over="ignore"):
        module = module_of(raw, n_features, torch.float32)
    off = folding_deviation(module, network, by, x)
    if off <= EXACT:
        return module, off
    module = module_of(raw, n_features, torch.float64)
    return module, folding_deviation(module, network, by, x)
