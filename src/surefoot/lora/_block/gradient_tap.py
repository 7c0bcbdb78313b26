"""The first gradient of a block: preconditioning, and what it says about the full gradient for free."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from surefoot.lora._block import gradient_changes
from surefoot.lora._block.adapted_layer import AdaptedLayer
from surefoot.lora.config import Side


def gram_inverse(tall: Float[Tensor, "d r"]) -> Float[Tensor, "r r"]:
    """(S^T S)^+ in float64."""
    found: Tensor = torch.linalg.pinv(tall.T @ tall, hermitian=True)
    return found


class GradientTap:
    """Hooks on the factors: sums the raw gradient of a block's first step, preconditions every one.

    With A frozen and B = 0, dL/dB = s G A^T, so that dL/dB (A A^T)^+ dL/dB^T / s^2 has the trace
    ||G H_A||_F^2, and d/r times that is an unbiased estimate of ||G||_F^2 (derived here). Just before the
    step they are compared with what the optimizer is about to use: that tells a loss scale, by which they
    are divided, from clipping and noise, after which nothing is measured. `scaler` may name the scaler, and
    `unknown` says why the last block's gradient could not be measured.
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
        self._scale = 1.0
        self._changed: str | None = None
        self._untold = False
        self.unknown: str | None = None
        self.scaler: Any = None

    def open(self, side: Side, *, listen: bool = True) -> None:
        """Start a block whose trained factor is `side`; `listen` collects its first gradient."""
        self.close()
        self._side, self._listening, self._measured = side, listen, None
        self._raw, self._inverse = {}, {}
        self._scale, self._changed, self._untold = 1.0, None, False
        for layer in self.layers:
            self._inverse[layer.name] = self._gram_inverse(layer, side)
        self._listen()

    def _listen(self) -> None:
        for layer in self.layers:
            parameter = layer.parameter(self._side)
            if parameter.requires_grad:
                handle = parameter.register_hook(self._hook(layer))  # type: ignore[no-untyped-call]
                self._handles.append(handle)

    def follow(self) -> None:
        """Hook the factors again where they are others: torch copies a tensor without its hooks."""
        factors = [x.parameter(self._side) for x in self.layers]
        if len(self._handles) != len(factors):
            return  # nothing is hooked where the weights themselves train
        pairs = zip(factors, self._handles, strict=True)
        if any(handle.id not in (p._backward_hooks or ()) for p, handle in pairs):
            self.close()
            self._listen()

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
            return self._preconditioned(layer, gradient) if self.precondition else None

        return hook

    def _preconditioned(self, layer: AdaptedLayer, gradient: Tensor) -> Tensor:
        inverse = self._inverse[layer.name] / layer.scaling**2
        matrix = gradient.flatten(1).to(inverse.dtype)
        new = matrix @ inverse if self._side == "B" else inverse @ matrix
        return new.reshape(gradient.shape).to(gradient.dtype)

    def before_step(self, held: float) -> None:
        """Compare the gradients that a step is about to use with those that backward gave.

        Parameters
        ----------
        held
            What those of the step are still multiplied by.
        """
        if not self._listening or not self._raw:
            return
        pairs = [
            (x, self._raw[x.name], x.parameter(self._side).grad)
            for x in self.layers
            if x.name in self._raw
        ]
        found = [(x, raw, used.detach()) for x, raw, used in pairs if used is not None]
        if _processes() > 1:
            # The step's gradient is the mean over processes, which none of them has seen by itself.
            self._scale = held
            for layer, raw, used in found:
                self._raw[layer.name] = self._unconditioned(layer, used.to(raw))
        elif found:
            given = [
                (self._preconditioned(x, raw) if self.precondition else raw, used)
                for x, raw, used in found
            ]
            known = held if held != 1 else self._told_scale()
            self._scale, self._changed = gradient_changes.compare(given, held, known)
            self._untold = known is None and self._changed == gradient_changes.MULTIPLIED

    def _unconditioned(self, layer: AdaptedLayer, gradient: Tensor) -> Tensor:
        if not self.precondition:
            return gradient.clone()
        gram = torch.linalg.pinv(self._inverse[layer.name], hermitian=True) * layer.scaling**2
        flat, gram = gradient.flatten(1), gram.to(gradient)
        raw: Tensor = flat @ gram if self._side == "B" else gram @ flat
        return raw.reshape(gradient.shape)

    def _told_scale(self) -> float | None:
        return None if self.scaler is None else float(self.scaler.get_scale())

    @property
    def changed(self) -> str | None:
        """How the first step's gradients were none of the loss, as a sentence; None where they were."""
        return self._changed

    def step_skipped(self) -> None:
        """Forget a gradient that no step has used."""
        self._raw = {}

    def refuse(self, reason: str) -> None:
        """Measure nothing in this block: its gradients are not those of the loss."""
        self._changed, self._raw = reason, {}

    def first_step_done(self) -> None:
        """Turn what was collected into two numbers and let the tensors go."""
        if self._untold and self.scaler is not None:
            # The step was taken before the chain met the optimizer, which has a scaler.
            used = [x.parameter(self._side) for x in self.layers]
            scale = gradient_changes.scale_before(self.scaler, self._scale, used)
            if scale is not None:
                self._scale, self._changed = scale, None
        if self._listening and self._raw:
            self._measured = self._measure(self._scale)
        if self._listening:
            self.unknown = self._changed
            if self._changed is None and self._raw and self._measured is None:
                self.unknown = "it is not finite"
        self._listening = False
        self._raw = {}

    def norms(self) -> tuple[float, float] | None:
        """(projected, estimated full) squared norm of the gradient; None before any was seen."""
        if not (self._listening and self._raw):
            return self._measured
        return self._measure(self._told_scale() or 1.0)

    def restore(self, measured: tuple[float, float] | None) -> None:
        """Put back what an interrupted block had measured."""
        self._measured = measured

    def _measure(self, scale: float) -> tuple[float, float] | None:
        if self._changed is not None:
            return None
        projected = full = 0.0
        for layer in self.layers:
            if layer.name not in self._raw:
                continue
            raw = self._raw[layer.name].flatten(1).double()
            inverse = self._inverse[layer.name]
            inner = raw.T @ raw if self._side == "B" else raw @ raw.T
            part = float((inner * inverse).sum()) / (layer.scaling * scale) ** 2
            projected += part
            full += part * layer.sampled_dim(self._side) / layer.r
        return (projected, full) if math.isfinite(full) else None


def _processes() -> int:
    group = torch.distributed
    return group.get_world_size() if group.is_available() and group.is_initialized() else 1
