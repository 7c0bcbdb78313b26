"""Merge a block into the base weights, keeping what 16-bit weights would round away."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from surefoot.lora._block.adapted_layer import AdaptedLayer
from surefoot.lora.config import MergeDtype
from surefoot.lora.errors import ChainStateError

HALVES = (torch.float16, torch.bfloat16)
# A residual of float16 would reach its subnormal numbers: it is held 2^11 times as large. It is at most half
# a unit in the last place of the weight, 16 for the largest, so that it stays finite.
RAISED = {torch.float16: 2.0**11}


def sum_dtype(weight: torch.dtype, merge_dtype: MergeDtype) -> torch.dtype:
    """The precision in which a merge adds: wider than the weight wherever a residual is kept."""
    if weight in HALVES:
        return torch.float32
    return torch.float64 if merge_dtype == "residual" else weight


def residual_dtype(weight: torch.dtype, merge_dtype: MergeDtype) -> torch.dtype | None:
    """Where the rounding error of a merge is kept; None: it is not."""
    if merge_dtype == "auto":
        return weight if weight in HALVES else None
    if merge_dtype == "residual":
        return weight
    return torch.float32 if weight in HALVES else None


class Residuals:
    """Rounding errors of the merged weights by layer name; the sum of both is what was trained.

    `held` has those of float16 in units of 2^-11; `stored` and `restore` have all of them as they are.
    """

    def __init__(self, merge_dtype: MergeDtype) -> None:
        self.merge_dtype = merge_dtype
        self.held: dict[str, Tensor] = {}

    def stored(self, layer: AdaptedLayer) -> Tensor | None:
        """The residual of a layer in its weight's layout, None where there is none.

        Exact: in float32 where `held` is in float16.
        """
        found = self.held.get(layer.name)
        raised = None if found is None else RAISED.get(found.dtype)
        return found if found is None or raised is None else found.float() / raised

    def restore(self, layer: AdaptedLayer, residual: Tensor) -> None:
        """Take a residual as `stored` gave it.

        Parameters
        ----------
        layer
            Whose residual it is.
        residual
            In the weight's layout.
        """
        kept = residual_dtype(layer.weight.dtype, self.merge_dtype) or residual.dtype
        self.held[layer.name] = _raised(residual.to(layer.weight.device), kept)

    def total(self, layer: AdaptedLayer) -> Float[Tensor, "m n"]:
        """Weight plus residual as a matrix, in at least float32; a new tensor."""
        weight = layer.weight.data
        total = weight.to(sum_dtype(weight.dtype, self.merge_dtype), copy=True)
        residual = self.stored(layer)
        if residual is not None:
            total += residual
        return layer.as_matrix(total)

    def merge(self, layer: AdaptedLayer) -> None:
        """W += s B A in place of nothing else; the factors keep their values.

        Raises
        ------
        ChainStateError
            The merged weight is not finite; the weight is then unchanged.
        """
        kept = residual_dtype(layer.weight.dtype, self.merge_dtype)
        if kept is None:
            _add(layer)
            return
        weight = layer.weight.data
        total = self.total(layer)
        total += layer.delta(total.dtype)
        rounded = total.to(weight.dtype)
        if not torch.isfinite(rounded).all():
            raise ChainStateError(
                f"{layer.name}: the merged weight is not finite in {weight.dtype}; lower the "
                "learning rate"
            )
        rest = _raised(total - rounded.to(total.dtype), kept)
        weight.copy_(layer.like_weight(rounded))
        self.held[layer.name] = layer.like_weight(rest).contiguous()


def _raised(residual: Tensor, dtype: torch.dtype) -> Tensor:
    unit = RAISED.get(dtype)
    # A power of two is exact in the wider type.
    return residual.to(dtype) if unit is None else (residual.float() * unit).to(dtype)


def _add(layer: AdaptedLayer) -> None:
    """PEFT's merge without its temporaries; `check_finite` has seen the factors."""
    matrix = layer.as_matrix(layer.weight.data)
    if layer.A.dtype == matrix.dtype and matrix.data_ptr() == layer.weight.data_ptr():
        matrix.addmm_(layer.B, layer.A, alpha=layer.scaling)
    else:
        matrix = matrix + layer.delta(matrix.dtype)
        layer.weight.data.copy_(layer.like_weight(matrix))


def check_finite(layers: list[AdaptedLayer]) -> float:
    """Refuse a block with NaN or infinity before any base weight is touched; ||s B A||_F otherwise."""
    moved2 = 0.0
    for layer in layers:
        # No entry of s B A is larger than its norm, which costs two r x r products.
        size2 = layer.delta_norm2()
        dtype = layer.weight.dtype if layer.weight.dtype.is_floating_point else torch.float32
        if not math.sqrt(max(size2, 0.0)) < torch.finfo(dtype).max / 4 or math.isnan(size2):
            raise ChainStateError(
                f"{layer.name}: a factor holds NaN, infinity or numbers too large for "
                f"{dtype}; nothing was merged, go back to the last checkpoint"
            )
        moved2 += max(size2, 0.0)
    return math.sqrt(moved2)
