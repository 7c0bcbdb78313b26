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
from surefoot.in_context.guarantee import flow_certificates, training_certificates
from surefoot.in_context.looped import LoopedTransformer
from surefoot.in_context.population import optimal_step, population_loss
from surefoot.in_context.prompts import GaussianPrompts
from surefoot.in_context.training import train_looped
from surefoot.record import Record

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

RANDOM = 0.1
ARMS = {
    "quick": ((10, 20, 2, 0.0), (10, 20, 2, RANDOM), (5, 20, 3, 0.0)),
    "standard": (
        (10, 20, 2, 0.0), (10, 20, 2, RANDOM), (5, 20, 3, 0.0), (5, 20, 3, RANDOM),
        (10, 20, 5, 0.0), (10, 20, 5, RANDOM), (10, 5, 3, 0.0),
    ),
}  # fmt: skip
ARMS["paper"] = ARMS["standard"]
FLOWS = {
    "quick": ((10, 20, 2),),
    "standard": ((10, 20, 2), (10, 20, 5), (10, 200, 2)),
    "paper": ((10, 20, 2), (10, 20, 5), (10, 200, 2)),
}
STEPS = {"quick": 300, "standard": 600, "paper": 600}
SCORED = {"quick": 4000, "standard": 20_000, "paper": 20_000}


def _name(d: int, n: int, loops: int, std: float) -> str:
    return f"d = {d}, n = {n}, {loops} loops, from {'random' if std else 'zero'}"


def run(config: Any, seed: int, record: Record) -> None:
    """Every arm is trained on prompts of its own seed."""
    for d, n, loops, std in ARMS[config.size]:
        model = LoopedTransformer(d, loops, dtype=torch.float64, init_std=std, seed=seed)
        done = train_looped(
            model, GaussianPrompts(d, n, seed=seed), steps=STEPS[config.size],
            samples=SCORED[config.size], seed=seed,
        )  # fmt: skip
        keep(record, seed, _name(d, n, loops, std), done.record)
    for size in FLOWS[config.size]:
        keep(record, seed, _flow(*size), gradient_flow(*size, seed=seed).record)


def _flow(d: int, n: int, loops: int) -> str:
    return f"flow, d = {d}, n = {n}, {loops} loops"


def certificates(config: Any, record: Record) -> list[Certificate]:
    """The theorems on every arm; the arm is named."""
    return [
        dataclasses.replace(c, name=f"{c.name}, {name}")
        for name in (_name(*arm) for arm in ARMS[config.size])
        for c in training_certificates(of_arm(record, name))
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
             "|A - b* I| / b*": last(record, f"{name}: distance"), "exact |b* - 1|": abs(b - 1),
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


EXPECTS: dict[str, Verdict] = {}
