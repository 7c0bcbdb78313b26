"""Where an optimizer keeps the velocity v_n of arXiv 2302.05515, and under which names its constants."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from surefoot.nesterov.optimizer import AGNES, NAG
from surefoot.nesterov.parameters import AgnesParams


def hyperparameters(optimizer: torch.optim.Optimizer, group: dict[str, Any]) -> dict[str, float]:
    """eta, alpha and rho of a parameter group of AGNES, NAG or SGD with nesterov=True.

    Raises TypeError for any other optimizer.
    """
    if isinstance(optimizer, AGNES):
        return {
            "eta": float(group["correction"]),
            "alpha": float(group["lr"]),
            "rho": float(group["momentum"]),
        }
    if isinstance(optimizer, torch.optim.SGD) and group["nesterov"]:
        eta = float(group["lr"])
        return {"eta": eta, "alpha": eta, "rho": float(group["momentum"])}
    raise TypeError(
        "the ledger follows NAG, AGNES or torch.optim.SGD with nesterov=True, got "
        f"{type(optimizer).__name__}"
    )


def velocity(optimizer: torch.optim.Optimizer, p: Tensor, rule: AgnesParams) -> Tensor | None:
    """v_n of one parameter, None before its first step."""
    if isinstance(optimizer, AGNES):
        return optimizer.velocity(p)
    # torch keeps u with v = -rho u.
    buffer = optimizer.state.get(p, {}).get("momentum_buffer")
    return None if buffer is None else -rule.rho * buffer


def method(optimizer: torch.optim.Optimizer) -> str:
    """The method that the ledger follows, also where a class derived from it runs."""
    if isinstance(optimizer, AGNES):
        return "NAG" if isinstance(optimizer, NAG) else "AGNES"
    return "SGD with nesterov=True"
