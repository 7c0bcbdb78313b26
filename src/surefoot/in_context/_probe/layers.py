"""Fit each layer as one step of gradient descent from where the layer before it stopped."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from surefoot.in_context._probe.verdict import THRESHOLD


@dataclass(frozen=True)
class LayerFit:
    """One layer as one step w + A'(g - Sh w).

    Attributes
    ----------
    layer
        Its place, from 1.
    error
        Squared error of the step on held-out prompts, relative to the step that the layer takes; 0 where
        it takes none.
    A
        (d, d): the preconditioner.
    """

    layer: int
    error: float
    A: Float[Tensor, "d d"]

    @property
    def is_gd(self) -> bool:
        """Whether the error is below the threshold of the probe."""
        return self.error < THRESHOLD

    def to_dict(self) -> dict[str, Any]:
        """In JSON's types."""
        return {
            "layer": self.layer, "error": self.error, "is_gd": self.is_gd, "A": self.A.tolist()
        }  # fmt: skip


def fit_layers(
    fitted: tuple[Tensor, Tensor, Float[Tensor, "B layers d"]],
    held: tuple[Tensor, Tensor, Float[Tensor, "C layers d"]],
) -> tuple[LayerFit, ...]:
    """Least squares for each layer's A.

    Parameters
    ----------
    fitted, held
        Sh (B, d, d), g (B, d) and the implied weights after each layer, of the prompts to fit and of others.
    """
    found = []
    for k in range(fitted[2].shape[1]):
        residual, step = _step(*fitted, k)
        A = torch.linalg.lstsq(residual, step, driver="gelsd").solution
        residual, step = _step(*held, k)
        size = float(step.square().sum())
        error = float((residual @ A - step).square().sum())
        found.append(LayerFit(k + 1, error / size if size > 0 else float(error > 0), A))
    return tuple(found)


def _step(Sh: Tensor, g: Tensor, W: Tensor, k: int) -> tuple[Tensor, Tensor]:
    before = W[:, k - 1] if k else torch.zeros_like(g)
    return g - (Sh @ before[..., None])[..., 0], W[:, k] - before
