"""More loops at test time than in training: the mean falls and then diverges, the median goes on falling."""

from __future__ import annotations

import dataclasses
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from surefoot._problems.arms import keep, of_arm
from surefoot.certificate import Certificate
from surefoot.guarantee import Verdict
from surefoot.in_context.baselines import optimal_model
from surefoot.in_context.bounds import largest_shift
from surefoot.in_context.guarantee import DIVERGES, looping_certificates
from surefoot.in_context.looping import loop_longer
from surefoot.in_context.population import (
    LoopsCapWarning,
    optimal_step,
    population_loss,
    safe_loops,
)
from surefoot.in_context.prompts import GaussianPrompts
from surefoot.record import Record

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

ARMS = ((10, 20, 2), (10, 50, 2), (10, 50, 5), (10, 200, 5))
SHIFTS = (1.0, 2.0)
"""Factors of the covariance at test time."""
MOST = 14
PROMPTS = {"quick": 200, "standard": 2000, "paper": 20_000}


def _name(arm: tuple[int, int, int], shift: float) -> str:
    d, n, loops = arm
    return f"d = {d}, n = {n}, trained with {loops}" + (
        "" if shift == 1 else f", covariance x {shift:g}"
    )


def _arms() -> dict[str, tuple[tuple[int, int, int], float]]:
    return {_name(arm, shift): (arm, shift) for arm in ARMS for shift in SHIFTS}


EXPECTS = {
    f"{DIVERGES}, {name}": Verdict.VACUOUS for name, (_, shift) in _arms().items() if shift != 1
}


def run(config: Any, seed: int, record: Record) -> None:
    """The optimum of training, looped up to 14 times on fresh prompts."""
    for name, (arm, shift) in _arms().items():
        d, n, loops = arm
        prompts = GaussianPrompts(d, n, sigma=shift * torch.eye(d, dtype=torch.float64), seed=seed)
        done = loop_longer(
            optimal_model(d, n, loops), prompts, MOST, PROMPTS[config.size], repeats=1, seed=seed
        )
        keep(record, seed, name, done.record)


def certificates(config: Any, record: Record) -> list[Certificate]:
    """G6 and G7 of every arm."""
    return [
        dataclasses.replace(c, name=f"{c.name}, {name}")
        for name in _arms()
        for c in looping_certificates(of_arm(record, name))
    ]


def exact(arm: tuple[int, int, int], shift: float) -> list[float]:
    """The mean loss of 1, ..., 14 loops."""
    d, n, loops = arm
    # A covariance s S is a step s b on S.
    b = shift * optimal_step(d, n, loops)
    return [float(population_loss(d, n, count, b)) for count in range(1, MOST + 1)]


def tables(config: Any, record: Record) -> dict[str, pd.DataFrame]:
    """Where to stop, what it gives, and what comes of going on."""
    rows, shifted = [], []
    for name, (arm, shift) in _arms().items():
        mean, median = (
            record.curves(f"{name}: loops_{kind}").values.mean(0) for kind in ("loss", "median")
        )
        curve = exact(arm, shift)
        d, n, loops = arm
        b = optimal_step(d, n, loops)
        if shift != 1:
            least = int(np.argmin(curve)) + 1
            shifted.append(
                {"d": d, "n": n, "trained with": loops, "covariance": f"x {shift:g}",
                 "converges up to x": largest_shift(d, n, b),
                 "least exact loss": curve[least - 1], "at loops": least,
                 f"exact at {MOST}": curve[-1], f"median at {MOST}": median[-1],
                 "prompts that diverge": float(record[f"{name}: diverging"].mean())}
            )  # fmt: skip
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", LoopsCapWarning)
            safe = safe_loops(d, n, b, MOST)
        rows.append(
            {"d": d, "n": n, "trained with": loops, "exact loss there": curve[loops - 1],
             "safe loops": f"{safe}, still falling" if safe == MOST else str(safe),
             "exact loss at those": curve[safe - 1], f"exact at {MOST}": curve[-1],
             f"mean of prompts at {MOST}": mean[-1], f"median at {MOST}": median[-1]}
        )  # fmt: skip
    seeds = len(record.seeds)
    return {
        f"looped further, {seeds} x {PROMPTS[config.size]} prompts": pd.DataFrame(rows),
        "the same where the covariance has grown": pd.DataFrame(shifted),
    }


def figures(config: Any, record: Record) -> dict[str, Figure]:
    """Exact mean, mean and median of the prompts."""
    import plotly.graph_objects as go

    found = {}
    for name, (arm, shift) in _arms().items():
        if shift != 1:
            continue
        mean, median = (
            record.curves(f"{name}: loops_{kind}").values.mean(0)[1:] for kind in ("loss", "median")
        )
        figure = go.Figure()
        for label, values, colour, dash in (
            ("exact mean", exact(arm, shift), "#1098ad", "solid"),
            ("mean of the prompts", mean, "#e8590c", "dash"),
            ("median of the prompts", median, "#845ef7", "dot"),
        ):
            figure.add_scatter(
                x=list(range(1, MOST + 1)), y=[float(v) for v in values], name=label,
                mode="lines+markers", line={"color": colour, "dash": dash},
            )  # fmt: skip
        figure.update_layout(xaxis_title="loops", yaxis_title="squared error", yaxis_type="log")
        found[name] = figure
    return found
