"""What stands beside every result: the equal-width MLP, and errors of both."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from jaxtyping import Float64
from torch import Tensor, nn

from surefoot._problems.arms import of_arm
from surefoot.certificate import Certificate
from surefoot.kan.guarantee import run_certificates
from surefoot.record import Record


def mlp(d: int, m: int, seed: int) -> nn.Module:
    """d - m - 1 with SiLU, float64, torch's own start, from its own seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(d, m), nn.SiLU(), nn.Linear(m, 1)).double()


def judged(record: Record, arm: str) -> list[Certificate]:
    """T1 and T2, or T3, of one arm; its name is theirs."""
    return [
        dataclasses.replace(c, name=f"{c.name}, {arm}")
        for c in run_certificates(of_arm(record, arm))
    ]


def rmse(model: Any, X: Float64[Tensor, "n d"], y: Float64[Tensor, " n"]) -> float:
    """Root mean squared error."""
    with torch.no_grad():
        return float((model(X).reshape(-1) - y).square().mean().sqrt())
