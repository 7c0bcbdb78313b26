"""AGNES and NAG."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


class AGNES(torch.optim.Optimizer):
    """Interim."""

    def __init__(
        self, params: Any, lr: float = 1e-3, correction: float = 1e-2, momentum: float = 0.99,
        weight_decay: float = 0.0, *, maximize: bool = False, **kw: Any,
    ) -> None:  # fmt: skip
        super().__init__(
            params,
            {"lr": lr, "correction": correction, "momentum": momentum,
             "weight_decay": weight_decay, "maximize": maximize},
        )  # fmt: skip

    @classmethod
    def from_constants(
        cls, params: Any, *, mu: float, L: float, sigma_mult: float = 0.0, **kw: Any
    ) -> AGNES:
        """From constants."""
        from surefoot.nesterov.parameters import agnes_parameters

        c = agnes_parameters(mu, L, sigma_mult)
        return cls(params, lr=c.alpha, correction=c.eta, momentum=c.rho)

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """One step."""
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if "velocity" not in state:
                    state["velocity"] = torch.zeros_like(p)
                v = state["velocity"]
                x = p - group["correction"] * p.grad
                v.sub_(p.grad).mul_(group["momentum"])
                p.copy_(x + group["lr"] * v)

    @contextmanager
    def iterate(self) -> Iterator[None]:
        """Hold x_n."""
        saved = [(p, p.detach().clone()) for g in self.param_groups for p in g["params"]]
        with torch.no_grad():
            for g in self.param_groups:
                for p in g["params"]:
                    if "velocity" in self.state[p]:
                        p.sub_(self.state[p]["velocity"], alpha=g["lr"])
        try:
            yield
        finally:
            with torch.no_grad():
                for p, y in saved:
                    p.copy_(y)

    def finalize(self) -> None:
        """Write x_n."""
        with torch.no_grad():
            for g in self.param_groups:
                for p in g["params"]:
                    if "velocity" in self.state[p]:
                        p.sub_(self.state[p]["velocity"], alpha=g["lr"])
                        self.state[p]["velocity"].zero_()


class NAG(AGNES):
    """Interim."""

    def __init__(self, params: Any, lr: float, momentum: float, **kw: Any) -> None:
        super().__init__(params, lr, lr, momentum, **kw)
