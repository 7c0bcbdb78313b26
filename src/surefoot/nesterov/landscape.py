"""Interim."""

from __future__ import annotations

from typing import Any

import torch
from torch.func import functional_call, grad, vmap

from surefoot.nesterov.noise import NoiseSample


class Landscape:
    """Interim."""

    def __init__(self, model: Any, loss_fn: Any, data: Any) -> None:
        self.model, self.loss_fn, self.data = model, loss_fn, data

    def noise(self, batch_size: int, replacement: bool = True) -> NoiseSample:
        """Interim."""
        params = {k: v.detach() for k, v in self.model.named_parameters()}

        def one(p: Any, x: Any, y: Any) -> Any:
            return self.loss_fn(functional_call(self.model, p, (x[None],)), y[None])

        g = vmap(grad(one), (None, 0, 0))(params, *self.data)
        flat = torch.cat([t.reshape(len(t), -1) for t in g.values()], 1)
        mean = flat.mean(0)
        V1 = float(((flat - mean) ** 2).sum(1).mean())
        return NoiseSample(V1 / batch_size, float(mean @ mean), V1, batch_size)
