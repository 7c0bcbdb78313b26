"""Trained models beside the exact optimum, from zero and from a random start, and what the theorems say."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch

from surefoot._problems.arms import keep, last, of_arm
from surefoot.certificate import Certificate
from surefoot.guarantee import Verdict
from surefoot.in_context.bounds import flow_time, minimiser_bound
from surefoot.in_context.flow import gradient_flow
from surefoot.in_context.guarantee import (
    BIAS,
    MINIMISER,
    TIME,
    flow_certificates,
    training_certificates,
)
from surefoot.in_context.looped import LoopedTransformer
from surefoot.in_context.population import optimal_step, population_loss
from surefoot.in_context.prompts import GaussianPrompts
from surefoot.in_context.training import train_looped
from surefoot.record import Record

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

STD = 0.1
WITH_U = "random, u trained"
ARMS = {
    "quick": ((10, 20, 2, "zero"), (10, 20, 2, "random"), (5, 20, 3, "zero"), (5, 20, 2, WITH_U)),
    "standard": (
        (10, 20, 2, "zero"), (10, 20, 2, "random"), (5, 20, 3, "zero"), (5, 20, 3, "random"),
        (10, 20, 5, "zero"), (10, 20, 5, "random"), (10, 5, 3, "zero"), (5, 20, 2, WITH_U),
    ),
}  # fmt: skip
ARMS["paper"] = ARMS["standard"]
FLOWS = {
    "quick": ((10, 20, 2),),
    "standard": ((10, 20, 2), (10, 20, 5), (10, 200, 2)),
    "paper": ((10, 20, 2), (10, 20, 5), (10, 200, 2)),
}
STEPS = {"quick": 300, "standard": 600, "paper": 600}
SCORED = {"quick": 2000, "standard": 20_000, "paper": 20_000}


def _name(d: int, n: int, loops: int, start: str) -> str:
    return f"d = {d}, n = {n}, {loops} loops, from {start}"


def _model(d: int, loops: int, start: str, seed: int) -> LoopedTransformer:
    std = 0.0 if start == "zero" else STD
    model = LoopedTransformer(
        d, loops, train_u=start == WITH_U, dtype=torch.float64, init_std=std, seed=seed
    )
    if start == WITH_U:
        drawn = torch.randn(d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        with torch.no_grad():
            model.u.copy_(drawn)
    return model


def run(config: Any, seed: int, record: Record) -> None:
    """Every arm is trained on prompts of its own seed."""
    for d, n, loops, start in ARMS[config.size]:
        done = train_looped(
            _model(d, loops, start, seed), GaussianPrompts(d, n, seed=seed), steps=STEPS[config.size],
            samples=SCORED[config.size], seed=seed,
        )  # fmt: skip
        keep(record, seed, _name(d, n, loops, start), done.record)
    for size in FLOWS[config.size]:
        keep(record, seed, _flow(*size), gradient_flow(*size, seed=seed).record)


def _flow(d: int, n: int, loops: int) -> str:
    return f"flow, d = {d}, n = {n}, {loops} loops"


def certificates(config: Any, record: Record) -> list[Certificate]:
    """The theorems on every arm; the arm is named. The cost of u is for the arm that has one.

    So is nothing else: from a random u it takes longer than all are given to come near the optimum.
    """
    return [
        dataclasses.replace(c, name=f"{c.name}, {name}")
        for name in (_name(*arm) for arm in ARMS[config.size])
        for c in training_certificates(of_arm(record, name))
        if c.name != TIME and (c.name == BIAS) == name.endswith(WITH_U)
    ] + [
        dataclasses.replace(c, name=f"{c.name}, {_flow(*size)}")
        for size in FLOWS[config.size]
        for c in flow_certificates(of_arm(record, _flow(*size)))
    ]


def tables(config: Any, record: Record) -> dict[str, pd.DataFrame]:
    """How near training came, and what Theorem 3.2 promised."""
    rows = []
    for arm in ARMS[config.size]:
        d, n, loops, _ = arm
        name, b = _name(*arm), optimal_step(d, n, loops)
        rows.append(
            {"trained": name, "b*": b, "exact loss at b*": float(population_loss(d, n, loops, b)),
             "loss / loss at b*, same prompts": last(record, f"{name}: loss_ratio"),
             "|A - b* I| / b*": last(record, f"{name}: distance"),
             "|u|": last(record, f"{name}: u_norm"), "exact |b* - 1|": abs(b - 1),
             "promised c": float(minimiser_bound(d, n, loops))}
        )  # fmt: skip
    return {
        f"{STEPS[config.size]} steps of Adam, mean over seeds": pd.DataFrame(rows),
        "exact gradient flow from A = 0": _times(config, record),
    }


def _times(config: Any, record: Record) -> pd.DataFrame:
    """How long the flow takes to halve the loss above the least, and what the bounds say of it."""
    rows = []
    for d, n, loops in FLOWS[config.size]:
        own = of_arm(record, _flow(d, n, loops))
        losses, times = (own.curves(k).values[0] for k in ("loss", "flow_time"))
        least = float(population_loss(d, n, loops, optimal_step(d, n, loops)))
        at = next(i for i, v in enumerate(losses) if v - least <= (losses[0] - least) / 2)
        xi = float(losses[at])
        rows.append(
            {"d": d, "n": n, "loops": loops, "loss": xi, "time": float(times[at]),
             "promised, integrated": flow_time(xi, loops, float(losses[0])),
             "as printed": flow_time(xi, loops, float(losses[0]), form="as_printed")
             if loops > 1 else float("nan")}
        )  # fmt: skip
    return pd.DataFrame(rows)


def figures(config: Any, record: Record) -> dict[str, Figure]:
    """The loss of every arm's first seed, over its own least one."""
    import plotly.graph_objects as go

    figure = go.Figure()
    for number, arm in enumerate(ARMS[config.size]):
        name = _name(*arm)
        curves, least = record.curves(f"{name}: loss"), last(record, f"{name}: least_loss")
        figure.add_scatter(
            x=[int(t) for t in curves.steps], y=[float(v) / least for v in curves.values[0]], name=name,
            mode="lines+markers", line={"dash": ("solid", "dash", "dot", "dashdot")[number % 4]},
        )  # fmt: skip
    figure.update_layout(xaxis_title="step", yaxis_title="loss / exact optimum", yaxis_type="log")
    return {"training, over the exact optimum": figure}


EXPECTS = {
    f"{MINIMISER}, {_name(*arm)}": Verdict.VACUOUS for arm in ARMS["quick"] if arm[3] != WITH_U
}
