"""Past blocks on a quantised base: never merged, held in a second, frozen adapter."""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from surefoot.lora._block.adapted_layer import AdaptedLayer
from surefoot.lora._block.compress import compress, stack
from surefoot.lora.doors.peft import add_rank_one, is_quantized
from surefoot.lora.errors import ChainStateError


class Companion:
    """The frozen adapter `<adapter>_past`: concatenated factors, recompressed at the rank cap.

    `error` is the relative Frobenius norm of what recompressing has cut off so far, added up over
    the blocks: an upper limit for each layer's share, 0 below the cap.
    """

    def __init__(
        self, model: Any, layers: list[AdaptedLayer], adapter: str, rank: int | None
    ) -> None:
        self.layers = [layer for layer in layers if is_quantized(layer)]
        self.adapter = f"{adapter}_past"
        self.rank = rank
        self.cut: dict[str, float] = {layer.name: 0.0 for layer in self.layers}
        self.past: dict[str, tuple[Tensor, Tensor]] = {}
        if not self.layers:
            return
        add_rank_one(model, self.adapter, [layer.name for layer in self.layers])
        for layer in self.layers:
            zero = torch.zeros
            self.put(layer, zero(layer.m, 1), zero(1, layer.n))
            layer.module.set_adapter([self.adapter, layer.adapter])

    def __contains__(self, layer: AdaptedLayer) -> bool:
        return any(layer.name == mine.name for mine in self.layers)

    def put(self, layer: AdaptedLayer, B: Float[Tensor, "m R"], A: Float[Tensor, "R n"]) -> None:
        """Make B A the past of a layer."""
        module, like = layer.module, layer.parameter("A")
        for side, matrix in (("A", A), ("B", B)):
            rows, columns = matrix.shape
            linear = nn.Linear(columns, rows, bias=False, device=like.device, dtype=like.dtype)
            linear.weight.requires_grad_(False)
            linear.weight.data.copy_(matrix)
            getattr(module, f"lora_{side}")[self.adapter] = linear
        module.r[self.adapter] = A.shape[0]
        module.scaling[self.adapter] = 1.0
        self.past[layer.name] = (B, A)

    def merge(self, layer: AdaptedLayer) -> None:
        """Add the open block to the past."""
        block = (layer.B.detach() * layer.scaling, layer.A.detach().clone())
        before = self.past[layer.name]
        before = (before[0].to(block[0]), before[1].to(block[1]))
        empty = not bool(before[0].any())
        B, A = block if empty else stack([before, block])
        cap = min(layer.m, layer.n) if self.rank is None else self.rank
        if A.shape[0] > cap:
            small = compress(B, A, cap)
            self.cut[layer.name] += math.sqrt(small.cut2)
            B, A = small.B.to(B.dtype), small.A.to(A.dtype)
        self.put(layer, B, A)

    @property
    def error(self) -> float:
        """Cut-off norm over the norm of the past, all layers together."""
        cut2 = sum(c**2 for c in self.cut.values())
        past2 = sum(
            float(((b.double().T @ b.double()) * (a.double() @ a.double().T)).sum())
            for b, a in self.past.values()
        )
        return math.sqrt(cut2 / past2) if past2 else 0.0

    def total(self, layer: AdaptedLayer) -> Float[Tensor, "m n"]:
        """The base weight, dequantised by what it does to the identity, plus the past."""
        base = layer.module.get_base_layer()
        device, dtype = layer.A.device, torch.float32
        with torch.no_grad():
            eye = torch.eye(layer.n, device=device, dtype=dtype)
            weight: Tensor = (base(eye) - base(torch.zeros_like(eye))).T.to(dtype)
        B, A = self.past[layer.name]
        return weight + B.to(weight) @ A.to(weight)

    def verify(self) -> None:
        """Raise where somebody switched the past off or on to training."""
        for layer in self.layers:
            if self.adapter not in layer.module.active_adapters:
                raise ChainStateError(
                    f"{layer.name}: the companion adapter {self.adapter!r} that holds the past blocks "
                    f"is not active; call set_adapter([{self.adapter!r}, {layer.adapter!r}]) on it"
                )

    def refreeze(self) -> None:
        """Switch gradients off again."""
        for layer in self.layers:
            for factors in (layer.module.lora_A, layer.module.lora_B):
                factors[self.adapter].weight.requires_grad_(False)
