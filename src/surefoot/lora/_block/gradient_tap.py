"""The first gradient of a block: preconditioning, and what it says about the full gradient for free."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from surefoot.lora._block.adapted_layer import AdaptedLayer
from surefoot.lora.config import Side


def gram_inverse(tall: Float[Tensor, "d r"]) -> Float[Tensor, "r r"]:
    """(S^T S)^+ in float64."""
    found: Tensor = torch.linalg.pinv(tall.T @ tall, hermitian=True)
    return found


class GradientTap:
    """Hooks on the factors: sums the raw gradient of a block's first step, preconditions every one.

    With A frozen and B = 0, dL/dB = s G A^T, so that dL/dB (A A^T)^+ dL/dB^T / s^2 has the trace
    ||G H_A||_F^2, and d/r times that is an unbiased estimate of ||G||_F^2 (derived here). Under data
    parallelism the gradient is that of this process.
    """

    def __init__(
        self, layers: list[AdaptedLayer], precondition: bool, orthonormal: bool = False
    ) -> None:
        self.layers = layers
        self.precondition = precondition
        self.orthonormal = orthonormal
        self._side: Side = "B"
        self._inverse: dict[str, Tensor] = {}
        self._raw: dict[str, Tensor] = {}
        self._listening = False
        self._handles: list[Any] = []
        self._measured: tuple[float, float] | None = None

    def open(self, side: Side, *, listen: bool = True) -> None:
        """Start a block whose trained factor is `side`; `listen` collects its first gradient."""
        self.close()
        self._side, self._listening, self._measured = side, listen, None
        self._raw, self._inverse = {}, {}
        for layer in self.layers:
            self._inverse[layer.name] = self._gram_inverse(layer, side)
            parameter = layer.parameter(side)
            if parameter.requires_grad:
                handle = parameter.register_hook(self._hook(layer))  # type: ignore[no-untyped-call]
                self._handles.append(handle)

    def _gram_inverse(self, layer: AdaptedLayer, side: Side) -> Float[Tensor, "r r"]:
        if self.orthonormal:
            return torch.eye(layer.r, dtype=torch.float64, device=layer.A.device)
        return gram_inverse(layer.tall(side)).to(layer.A.device)

    def close(self) -> None:
        """Take the hooks away."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def _hook(self, layer: AdaptedLayer) -> Callable[[Tensor], Tensor | None]:
        def hook(gradient: Tensor) -> Tensor | None:
            if self._listening:
                raw = gradient.detach().to(torch.promote_types(gradient.dtype, torch.float32))
                held = self._raw.get(layer.name)
                self._raw[layer.name] = raw.clone() if held is None else held + raw
            if not self.precondition:
                return None
            inverse = self._inverse[layer.name] / layer.scaling**2
            matrix = gradient.flatten(1).to(inverse.dtype)
            new = matrix @ inverse if self._side == "B" else inverse @ matrix
            return new.reshape(gradient.shape).to(gradient.dtype)

        return hook

    def first_step_done(self) -> None:
        """Turn what was collected into two numbers and let the tensors go."""
        if self._listening and self._raw:
            self._measured = self._measure()
        self._listening = False
        self._raw = {}

    def norms(self) -> tuple[float, float] | None:
        """(projected, estimated full) squared norm of the gradient; None before any was seen."""
        return self._measure() if self._listening and self._raw else self._measured

    def restore(self, measured: tuple[float, float] | None) -> None:
        """Put back what an interrupted block had measured."""
        self._measured = measured

    def _measure(self) -> tuple[float, float]:
        projected = full = 0.0
        for layer in self.layers:
            if layer.name not in self._raw:
                continue
            raw = self._raw[layer.name].flatten(1).double()
            inverse = self._inverse[layer.name]
            inner = raw.T @ raw if self._side == "B" else raw @ raw.T
            part = float((inner * inverse).sum()) / layer.scaling**2
            projected += part
            full += part * layer.sampled_dim(self._side) / layer.r
        return projected, full
