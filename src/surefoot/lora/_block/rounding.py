"""Two numbers a weight, by which a change that is no rounding is told from one that is."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from surefoot.lora._block.adapted_layer import AdaptedLayer

Mark = tuple[float, float]
# A merge rounds once; other devices also sum the product otherwise.
SLACK = 64
PERIOD = 4099


def marks(layers: list[AdaptedLayer]) -> dict[str, Mark]:
    """By layer: (the sum of its base weight's entries under fixed signs, its Frobenius norm).

    The sum moves by about the norm of any change, so that it tells what the norm alone does not. Quantised
    weights, which no merge changes, have none.
    """
    return {x.name: _mark(x.weight.detach()) for x in layers if x.weight.is_floating_point()}


def beyond(layers: list[AdaptedLayer], stored: dict[str, Mark]) -> str:
    """The layers whose weights are further from the stored marks than rounding takes them; "": none."""
    now = marks(layers)
    far = []
    for layer in layers:
        if layer.name not in now or layer.name not in stored:
            continue
        (sum_now, norm_now), (sum_then, norm_then) = now[layer.name], stored[layer.name]
        allowed = SLACK * torch.finfo(layer.weight.dtype).eps * norm_then
        if not max(abs(sum_now - sum_then), abs(norm_now - norm_then)) <= allowed:
            far.append(layer.name)
    return ", ".join(far)


def _mark(weight: Tensor) -> Mark:
    # Apple's devices have no float64.
    flat = (weight.cpu() if weight.device.type == "mps" else weight).double().flatten()
    generator = torch.Generator().manual_seed(0)
    signs = (2.0 * torch.randint(0, 2, (PERIOD,), generator=generator) - 1).to(flat)
    rest = flat[len(flat) // PERIOD * PERIOD :]
    columns = flat[: len(flat) - len(rest)].view(-1, PERIOD).sum(0)
    columns[: len(rest)] += rest
    total, norm = float(columns @ signs), float(flat.norm())
    return (total, norm) if math.isfinite(total + norm) else (0.0, 0.0)
