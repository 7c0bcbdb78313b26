"""What perturbing does to the weights at learning rate 0: in place against factored (part drift)."""

from __future__ import annotations

import functools
from typing import Any

import pandas as pd
import torch
from torch import nn

from surefoot.guarantee import Assumption, Guarantee, assume_fact
from surefoot.record import Record
from surefoot.zeroth_order.lozo import LOZO

STEPS = (1, 10, 100, 1000)
LAST = {"quick": 100, "standard": 1000, "paper": 1000}
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
SIDE = 512


def name(dtype: str, mode: str) -> str:
    """The record's column."""
    return f"{dtype}, {mode}"


def run(config: Any, seed: int, record: Record) -> None:
    """Relative change of a 512 x 512 matrix after so many steps of learning rate 0."""
    generator = torch.Generator().manual_seed(seed)
    start = 0.02 * torch.randn(SIDE, SIDE, generator=generator)
    x = torch.randn(4, SIDE, generator=generator)
    for dtype, kind in DTYPES.items():
        for mode in ("inplace", "factored"):
            layer = nn.Linear(SIDE, SIDE, bias=False).to(kind)
            with torch.no_grad():
                layer.weight.copy_(start)
            before, batch = layer.weight.detach().clone(), x.to(kind)
            optimizer = LOZO(layer, 0.0, rank=2, nu=50, mode=mode, seed=seed, allow_drift=True)
            arm = name(dtype, mode)
            for t in range(1, LAST[config.size] + 1):
                optimizer.step(functools.partial(_loss, layer, batch))
                if t in STEPS:
                    optimizer.flush()
                    moved = (layer.weight.detach() - before).float().norm() / before.float().norm()
                    record.append(seed, t, **{arm: float(moved)})
            optimizer.note_facts(record, seed, arm)


def _loss(layer: nn.Module, batch: torch.Tensor) -> torch.Tensor:
    found: torch.Tensor = layer(batch).float().square().mean()
    return found


def _written(arm: str, record: Record) -> tuple[Assumption, ...]:
    return (
        assume_fact(
            record, "mode", "weights are not written", "mode 'factored'",
            lambda mode: mode == "factored", of=arm,
        ),
        assume_fact(record, "lr", "learning rate 0", "lr = 0", lambda lr: lr == 0, of=arm),
    )  # fmt: skip


def guarantees(config: Any) -> list[Guarantee]:
    """Factored weights are not written within a period: they cannot drift. In place they do."""
    found = []
    for dtype in DTYPES:
        for mode in ("factored", "inplace"):
            arm = name(dtype, mode)
            found.append(
                Guarantee(
                    name=f"no drift: {arm}",
                    statement="||W_t - W_0|| = 0 at learning rate 0",
                    source="by construction: a period's weights are read only",
                    quantity=arm,
                    sense="upper",
                    holds_in="every run",
                    bound=lambda record: 0.0,
                    assumptions=functools.partial(_written, arm),
                )
            )
    return found


def tables(config: Any, record: Record) -> dict[str, pd.DataFrame]:
    """Mean relative change over seeds."""
    rows = []
    for dtype in DTYPES:
        for mode in ("inplace", "factored"):
            curves = record.curves(name(dtype, mode))
            means = curves.values.mean(axis=0)
            rows.append(
                {"weights": dtype, "mode": mode}
                | {f"after {t}": v for t, v in zip(curves.steps, means, strict=True)}
            )
    return {"relative change of the weights at learning rate 0": pd.DataFrame(rows)}
