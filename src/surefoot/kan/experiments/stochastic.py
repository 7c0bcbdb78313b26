"""T3: mini-batches at the step that it permits, at a hundred times that, and at practical ones."""

from __future__ import annotations

from typing import Any

import pandas as pd
import torch

from surefoot._problems.arms import keep, last, least
from surefoot.certificate import Certificate
from surefoot.guarantee import Guarantee, Verdict
from surefoot.kan.experiments.arms import judged, mlp
from surefoot.kan.fit import Run, fit_sgd
from surefoot.kan.forecasting import stability_limit
from surefoot.kan.guarantee import STOPPED, mean_forecast, stays_in_ball, stochastic_linear_rate
from surefoot.kan.local_rate import certificate
from surefoot.kan.spectrum import tangent
from surefoot.kan.two_layer import KAN2
from surefoot.record import Record

SIZES = {"quick": (64, 40), "standard": (512, 600), "paper": (512, 600)}
POINTS, BATCH, SCALE = 6, 2, 4.5e-4
LONG = "100 times the step"
PRACTICAL = {"quick": 30, "standard": 400, "paper": 400}
EXPECTS = {f"{STOPPED}, {LONG}": Verdict.NOT_PROMISED}


def run(config: Any, seed: int, record: Record) -> None:
    """Tiny labels, so that the run stays in the ball as T3 promises; one start for all seeds."""
    m, steps = SIZES[config.size]
    X = torch.linspace(-0.9, 0.9, POINTS, dtype=torch.float64)[:, None]
    y = torch.cos(2 * X[:, 0])

    def start() -> KAN2:
        return KAN2(1, m, symmetric=True, seed=0)

    found = fit_sgd(start(), X, SCALE * y, steps, BATCH, seed=seed, every=steps, record=record)
    rate = found.local_rate.stochastic(BATCH)
    record.append(
        seed, 0, step=rate.step, p=rate.p, promised=rate.factor(found.eta) ** steps,
        share=float(found.losses[-1] / found.losses[0]),
    )  # fmt: skip
    eta = 100 * certificate(start(), X, 0.05 * y).stochastic(BATCH).step
    long = fit_sgd(start(), X, 0.05 * y, 20, BATCH, eta=eta, seed=seed, every=20)
    keep(record, seed, LONG, long.record)
    record.update(
        seed, 0,
        {f"{LONG}: moved / rho": long.moved / long.local_rate.rho, f"{LONG}: share": _share(long)},
    )  # fmt: skip
    for kind, model in {"KAN": start(), "MLP": mlp(1, m, 0)}.items():
        half = stability_limit(tangent(model, X), BATCH) / 2
        own = fit_sgd(model, X, y, PRACTICAL[config.size], BATCH, eta=half, seed=seed, every=10**6)
        record.update(seed, 0, {f"{kind}: share": _share(own), f"{kind}: eta": half})


def _share(run: Run) -> float:
    return float(run.losses[-1] / run.losses[0])


def guarantees(config: Any) -> list[Guarantee]:
    """T3's mean, its ball, and the forecast of the mean."""
    return [stochastic_linear_rate(), stays_in_ball(), mean_forecast()]


def certificates(config: Any, record: Record) -> list[Certificate]:
    """The step that is too long."""
    return [c for c in judged(record, LONG) if c.name.startswith(STOPPED)]


def tables(config: Any, record: Record) -> dict[str, pd.DataFrame]:
    """What T3 promised of the mean and what came; then practical steps, beside the MLP."""
    steps = SIZES[config.size][1]
    promised = pd.DataFrame(
        [
            {"step": last(record, "step"), "P(leaves) at most": last(record, "p"),
             "left": float(record["left"][:, -1].mean()), "promised mean L_T / L_0": last(record, "promised"),
             "forecast": float((record["mean_forecast"][:, -1] / record["mean_forecast"][:, 0]).mean()),
             "measured mean": last(record, "share")},
            {"step": 100 * last(record, "step"), "P(leaves) at most": 1.0,
             "left": float(record[f"{LONG}: left"][:, -1].mean()), "promised mean L_T / L_0": 1.0,
             "forecast": float("nan"), "measured mean": last(record, f"{LONG}: share")},
        ]
    )  # fmt: skip
    shares = {kind: last(record, f"{kind}: share") for kind in ("KAN", "MLP")}
    practical = pd.DataFrame(
        [
            {"model": kind, "eta": last(record, f"{kind}: eta"), "mean L_T / L_0": share,
             "better": least(**shares)}
            for kind, share in shares.items()
        ]
    )  # fmt: skip
    title = f"{PRACTICAL[config.size]} steps at half of each model's mean-square stability limit"
    return {
        f"{steps} steps of batches of {BATCH} of {POINTS}; the second row with labels of .05": promised,
        f"{title}, labels of 1": practical,
    }
