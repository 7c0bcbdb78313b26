"""AGNES as the paper writes it, one line a formula: for reading, and to hold the fast one against."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT


class ReferenceAGNES(torch.optim.Optimizer):
    """The two-step form of arXiv 2302.05515, with alpha, eta, rho and the velocity v itself.

    The parameters hold y_n = x_n + alpha v_n, and v_0 = 0. `AGNES` computes the same iterates in one
    pass over memory, with a buffer in other units; see `update`.
    """

    def __init__(
        self, params: ParamsT, alpha: float, eta: float, rho: float, weight_decay: float = 0.0
    ) -> None:
        super().__init__(
            params, {"alpha": alpha, "eta": eta, "rho": rho, "weight_decay": weight_decay}
        )

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One step from the gradients in `p.grad`."""
        for group in self.param_groups:
            alpha, eta, rho = group["alpha"], group["eta"], group["rho"]
            for p in group["params"]:
                if p.grad is None:
                    continue
                y: Tensor = p
                v: Tensor = self.state[p].get("v", torch.zeros_like(p))
                g = p.grad + group["weight_decay"] * y
                x = y - eta * g
                v = rho * (v - g)
                y = x + alpha * v
                self.state[p]["x"], self.state[p]["v"] = x, v
                p.copy_(y)
