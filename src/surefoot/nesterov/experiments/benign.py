"""Landscapes whose constants are known in closed form, so that the promise is exact."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from surefoot.certificate import Certificate
from surefoot.guarantee import Guarantee
from surefoot.nesterov.bounds import steps_to
from surefoot.nesterov.experiments.landscapes import (
    BenignLandscape,
    curved_valley,
    oscillating_parabola,
    sphere,
)
from surefoot.nesterov.experiments.ledgers import first_below, restore, run_gd, run_nag, store
from surefoot.nesterov.flow import heavy_ball_flow
from surefoot.record import Record

STEPS = 400
TOLERANCE = 1e-8
FLOW_TIME = 40.0


def arms() -> dict[str, tuple[BenignLandscape, float]]:
    """Name -> landscape and step size eta."""
    parabola, ball, valley = oscillating_parabola(), sphere(), curved_valley()
    safe = min(1 / parabola.L, parabola.mu / parabola.lambda_min**2)
    return {
        "oscillating parabola, eta = 1/L": (parabola, 1 / parabola.L),
        "oscillating parabola, eta = mu/eps^2": (parabola, safe),
        "sphere, eta = 1/L": (ball, 1 / ball.L),
        "curved valley, eta = 1/L": (valley, 1 / valley.L),
    }


def _closure(landscape: BenignLandscape) -> tuple[Tensor, Callable[[], Tensor]]:
    x = landscape.start.clone().requires_grad_()
    return x, lambda: landscape.f(x)


def run(config: Any, seed: int, record: Record) -> None:
    """Every landscape under NAG with its ledger, gradient descent beside it, and the flow."""
    for name, (landscape, eta) in arms().items():
        x, f = _closure(landscape)
        ran = run_nag([x], f, mu=landscape.mu, eta=eta, steps=STEPS, anchor=landscape.closest)
        store(record, seed, name, ran.measured)
        x, f = _closure(landscape)
        losses = run_gd([x], f, eta=1 / landscape.L, steps=10 * STEPS)
        record.extend(seed, f"{name}: gradient descent", losses)
    landscape = sphere()
    flow = heavy_ball_flow(
        landscape.f, landscape.start, mu=landscape.mu, time=FLOW_TIME, closest=landscape.closest
    )
    record.extend(seed, "flow: f(x_t) - f*", flow.gap)
    record.extend(seed, "flow: promised", flow.promised)


def guarantees(config: Any) -> list[Guarantee]:
    """The continuous promise along the flow on the sphere."""
    return [
        Guarantee(
            name="heavy-ball flow on the sphere",
            statement="f(x_t) - f* <= exp(-sqrt(mu) t) E(0)",
            latex=r"f(x_t) - f^* \le e^{-\sqrt{\mu}\, t} E(0)",
            source="in the setting of arXiv 2410.08395; constants derived here",
            quantity="flow: f(x_t) - f*",
            sense="upper",
            holds_in="every run",
            bound=lambda record: record["flow: promised"],
        )
    ]


def certificates(config: Any, record: Record) -> list[Certificate]:
    """One certificate a landscape and step size."""
    return [restore(record, name) for name in arms()]


def tables(config: Any, record: Record) -> dict[str, pd.DataFrame]:
    """Promised and measured steps to f - f* <= 1e-8, and those of gradient descent."""
    rows = []
    for name, (landscape, eta) in arms().items():
        gap = record[f"{name}: f_x"][0]
        start = landscape.start
        distance = float(((start - landscape.closest(start)) ** 2).sum())
        s = float(np.sqrt(landscape.mu * eta))
        promised = steps_to(TOLERANCE, s, float(gap[0]), distance, landscape.mu)
        found = restore(record, name)
        rows.append(
            {
                "landscape": name,
                "mu": landscape.mu,
                "L": landscape.L,
                "s": s,
                "verdict": found.landscape,
                "worst f / bound": found.tightness,
                "promised steps": promised,
                "measured steps": first_below(gap, TOLERANCE),
                "gradient descent": first_below(record[f"{name}: gradient descent"][0], TOLERANCE),
            }
        )
    return {"steps to 1e-8": pd.DataFrame(rows)}
