"""T1 where it is certified, and the forecast over widths, beside an MLP of each width."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from jaxtyping import Float64
from torch import Tensor

from surefoot._problems.arms import keep, last, least, of_arm
from surefoot.certificate import Certificate
from surefoot.guarantee import Guarantee, Verdict
from surefoot.kan.experiments.arms import judged, mlp, rmse
from surefoot.kan.experiments.figures import loss_figure
from surefoot.kan.fit import fit_gd
from surefoot.kan.guarantee import (
    CONDITIONED,
    CONFINED,
    CONTRACTION,
    RATE,
    conditioning,
    confinement,
    contraction,
    linear_rate,
)
from surefoot.kan.two_layer import KAN2
from surefoot.record import Record

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

WIDTHS = {"quick": (64, 256), "standard": (64, 256, 1024), "paper": (64, 256, 1024, 4096)}
STEPS = {"quick": 100, "standard": 2000, "paper": 2000}
CERTIFIED = {"quick": (256, 60), "standard": (512, 400), "paper": (512, 400)}
POINTS, FRESH = 40, 1000
LARGE = "labels of size 1"
EXPECTS = {
    f"{name}, {arm}": Verdict.NOT_PROMISED
    for name in (RATE, CONTRACTION, CONFINED, CONDITIONED)
    for arm in ("m = 64", "m = 256")
}
CERTIFIED_EXPECTS = {
    f"{name}, {LARGE}": Verdict.NOT_PROMISED for name in (RATE, CONTRACTION, CONFINED, CONDITIONED)
}


def target(X: Float64[Tensor, "n 2"]) -> Float64[Tensor, " n"]:
    """sin(pi x_1) x_2."""
    return torch.sin(math.pi * X[:, 0]) * X[:, 1]


def points(n: int, seed: int) -> Float64[Tensor, "n 2"]:
    """Uniform in the square [-1, 1]^2."""
    g = torch.Generator().manual_seed(seed)
    return 2 * torch.rand(n, 2, generator=g, dtype=torch.float64) - 1


def run_certified(config: Any, seed: int, record: Record) -> None:
    """Six points, labels s sin 3x: s = .01 is certified; s = 1 is not, and yet nothing is violated."""
    m, steps = CERTIFIED[config.size]
    X = torch.linspace(-0.9, 0.9, 6, dtype=torch.float64)[:, None]
    y = torch.sin(3 * X[:, 0])
    model = KAN2(1, m, symmetric=True, seed=seed)
    run = fit_gd(model, X, 0.01 * y, steps, mode="certified", every=25, seed=seed, record=record)
    record.append(seed, 0, violations=run.violations, R=run.local_rate.R, step=run.local_rate.step)
    large = fit_gd(KAN2(1, m, symmetric=True, seed=seed), X, y, steps, every=25)
    keep(record, seed, LARGE, large.record)
    record.update(
        seed, 0,
        {f"{LARGE}: violations": large.violations, f"{LARGE}: width needed": large.local_rate.width_needed},
    )  # fmt: skip
    beside = fit_gd(mlp(1, m, seed), X, 0.01 * y, steps, every=steps)
    record.update(seed, 0, {"MLP: share left": float(beside.losses[-1] / beside.losses[0])})


def certified_guarantees(config: Any) -> list[Guarantee]:
    """All of T1."""
    return [linear_rate(), contraction(), confinement(), conditioning()]


def certified_certificates(config: Any, record: Record) -> list[Certificate]:
    """T1 and T2 where labels are a hundred times as large."""
    return judged(record, LARGE)


def certified_tables(config: Any, record: Record) -> dict[str, pd.DataFrame]:
    """What was promised, what happened; the MLP for comparison, of which nothing is promised."""
    loss, other = record["loss"], record[f"{LARGE}: loss"]
    share = record["moved"].max(axis=1) / record.constant("R")
    rows = [
        {
            "labels": "s = .01", "certified": True, "step": last(record, "step"),
            "violations": last(record, "violations"), "moved / R": float(share.max()),
            "L_T / L_0": float((loss[:, -1] / loss[:, 0]).mean()), "width needed": math.nan,
            "MLP, L_T / L_0": last(record, "MLP: share left"),
        },
        {
            "labels": "s = 1", "certified": False, "step": math.nan,
            "violations": last(record, f"{LARGE}: violations"), "moved / R": math.nan,
            "L_T / L_0": float((other[:, -1] / other[:, 0]).mean()),
            "width needed": last(record, f"{LARGE}: width needed"), "MLP, L_T / L_0": math.nan,
        },
    ]  # fmt: skip
    m = CERTIFIED[config.size][0]
    return {f"six points, m = {m}; the MLP has its own step 1/lambda_max": pd.DataFrame(rows)}


def run_widths(config: Any, seed: int, record: Record) -> None:
    """Gradient descent at eta = 1 / lambda_max, and an MLP of the same width at its own."""
    X, fresh = points(POINTS, 0), points(FRESH, 10**6)
    y, truth, steps = target(X), target(fresh), STEPS[config.size]
    for m in WIDTHS[config.size]:
        models = {f"m = {m}": KAN2(2, m, seed=seed), f"MLP, m = {m}": mlp(2, m, seed)}
        for arm, model in models.items():
            run = fit_gd(model, X, y, steps, every=50, seed=seed)
            keep(record, seed, arm, run.record)
            record.update(
                seed, 0,
                {f"{arm}: test error": rmse(model, fresh, truth), f"{arm}: violations": run.violations},
            )  # fmt: skip


def widths_certificates(config: Any, record: Record) -> list[Certificate]:
    """T1 and T2 at each width."""
    return [c for m in WIDTHS[config.size] for c in judged(record, f"m = {m}")]


def widths_tables(config: Any, record: Record) -> dict[str, pd.DataFrame]:
    """Spectrum, drift, forecast and what came; errors on fresh points, the better one named."""
    rows = []
    for m in WIDTHS[config.size]:
        errors = {}
        for kind, arm in (("KAN", f"m = {m}"), ("MLP", f"MLP, m = {m}")):
            own = of_arm(record, arm)
            loss, ahead = own["loss"][:, -1], own["forecast"][:, -1]
            errors[kind] = last(own, "test error")
            rows.append(
                {
                    "width": m, "model": kind, "lambda0": last(own, "lambda0"),
                    "lambda_max": last(own, "lambda_max"), "drift": last(own, "drift"),
                    "loss at the end": float(loss.mean()), "forecast": float(ahead.mean()),
                    "re-anchored": last(own, "reanchored"), "violations": last(own, "violations"),
                    "error on fresh points": errors[kind], "better": "",
                }
            )  # fmt: skip
        rows[-1]["better"] = rows[-2]["better"] = least(**errors)
    title = f"sin(pi x) y on {POINTS} points, {STEPS[config.size]} steps of 1/lambda_max, mean over seeds"
    return {title: pd.DataFrame(rows)}


def widths_figures(config: Any, record: Record) -> dict[str, Figure]:
    """Loss, forecast and re-anchored forecast of the first seed at each width."""
    return {
        f"m = {m}: loss and forecasts": loss_figure(of_arm(record, f"m = {m}"))
        for m in WIDTHS[config.size]
    }
