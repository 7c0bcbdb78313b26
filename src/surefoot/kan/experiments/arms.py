"""Several runs in one record, each under its name; the equal-width MLP that stands beside every result."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from jaxtyping import Float64
from torch import Tensor, nn

from surefoot.certificate import Certificate
from surefoot.kan.guarantee import run_certificates
from surefoot.record import Record


def mlp(d: int, m: int, seed: int) -> nn.Module:
    """d - m - 1 with SiLU, float64, torch's own start, from its own seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(d, m), nn.SiLU(), nn.Linear(m, 1)).double()


def keep(record: Record, seed: int, arm: str, run: Record) -> None:
    """What one run recorded, into the record of the part, under the name of its arm."""
    for quantity in run.quantities:
        curves = run.curves(quantity)
        record.extend(seed, f"{arm}: {quantity}", curves.values[0], curves.steps)
    for name, known in run.facts.items():
        for value in known.all:
            record.note(seed, arm, **{name: value})


def of_arm(record: Record, arm: str) -> Record:
    """The record of one arm, as its runs wrote it."""
    found, start = Record(), f"{arm}: "
    for quantity in record.quantities:
        if quantity.startswith(start):
            curves = record.curves(quantity)
            for seed, values in zip(curves.seeds, curves.values, strict=True):
                found.extend(int(seed), quantity.removeprefix(start), values, curves.steps)
    for key, known in record.facts.items():
        if key.startswith(f"{arm}."):
            name = key.removeprefix(f"{arm}.")
            for seed, values in known.values.items():
                for value in values:
                    found.note(seed, **{name: value})
    return found


def judged(record: Record, arm: str) -> list[Certificate]:
    """T1 and T2, or T3, of one arm; its name is theirs."""
    return [
        dataclasses.replace(c, name=f"{c.name}, {arm}")
        for c in run_certificates(of_arm(record, arm))
    ]


def last(record: Record, quantity: str) -> float:
    """The mean over seeds of the last value."""
    return float(record.constant(quantity).mean())


def rmse(model: Any, X: Float64[Tensor, "n d"], y: Float64[Tensor, " n"]) -> float:
    """Root mean squared error."""
    with torch.no_grad():
        return float((model(X).reshape(-1) - y).square().mean().sqrt())


def least(**values: float) -> str:
    """Which of several errors is the smallest."""
    return min(values, key=values.__getitem__).replace("_", " ")
