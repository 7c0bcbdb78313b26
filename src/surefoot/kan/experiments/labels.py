"""Labels along eigenvectors of K: T2 forecasts which of them are learnt first, on real diabetes data."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float64
from torch import Tensor

from surefoot._problems.arms import keep, last, least, of_arm
from surefoot.certificate import Certificate
from surefoot.guarantee import Guarantee, Verdict
from surefoot.kan.experiments.arms import judged, mlp
from surefoot.kan.experiments.diabetes import Table, scaled, shuffled
from surefoot.kan.fit import fit_gd
from surefoot.kan.guarantee import ABOVE, ANCHORED_ABOVE, BELOW, T2
from surefoot.kan.spectrum import tangent
from surefoot.kan.two_layer import KAN2
from surefoot.record import Record

SIZES = {"quick": (128, 50), "standard": (512, 150), "paper": (512, 150)}
ROWS = 60
KINDS = ("top", "actual", "random", "bottom")
FIRST, LAST = "top labels before the actual ones", "actual labels before the bottom ones"
# At eta = 1 / lambda_max a linear model learns the top eigenvector in one step; what is left is K's drift.
EXPECTS = {f"{ANCHORED_ABOVE}, top": Verdict.BROKEN}


def directions(
    K: Float64[Tensor, "n n"], y: Float64[Tensor, " n"], seed: int
) -> dict[str, Float64[Tensor, " n"]]:
    """Labels of one norm: along the top and the bottom eigenvector, the data's own, and random ones."""
    vectors = torch.linalg.eigh(K)[1]
    g = torch.Generator().manual_seed(seed)
    random = torch.randn(len(y), generator=g, dtype=torch.float64)
    found = {"top": vectors[:, -1], "actual": y, "random": random, "bottom": vectors[:, 0]}
    return {kind: v / v.norm() * y.norm() for kind, v in found.items()}


def run(config: Any, seed: int, record: Record) -> None:
    """The same start four times, with labels of the same size; then the MLP, along its own eigenvectors."""
    m, steps = SIZES[config.size]
    table = shuffled()
    rows = Table(table.X[:ROWS], table.y[:ROWS])
    data = scaled(rows, rows)
    X, y = data.X, data.y
    model = KAN2(10, m, symmetric=True, seed=seed)
    for kind, labels in directions(tangent(model, X).K, y, seed).items():
        run = fit_gd(KAN2(10, m, symmetric=True, seed=seed), X, labels, steps, every=25, seed=seed)
        keep(record, seed, kind, run.record)
        record.append(seed, steps, **{f"{kind} at the end": float(run.losses[-1])})
    beside = mlp(10, m, seed)
    with torch.no_grad():
        start = beside(X).reshape(-1)
    for kind, labels in directions(tangent(beside, X).K, y, seed).items():
        # From f = 0, as the symmetric KAN has it.
        own = fit_gd(mlp(10, m, seed), X, start + labels, steps, every=steps, seed=seed)
        record.update(seed, steps, {f"MLP, {kind} at the end": float(own.losses[-1])})


def guarantees(config: Any) -> list[Guarantee]:
    """The order that the spectrum forecasts: top, actual, bottom; a heuristic."""

    def of(name: str, sooner: str, later: str) -> Guarantee:
        def bound(record: Record) -> Float64[np.ndarray, "seeds steps"]:
            found: Float64[np.ndarray, "seeds steps"] = record[f"{later} at the end"]
            return found

        return Guarantee(
            name=name, statement=f"L with {sooner} labels <= L with {later} labels, after as many steps",
            source=T2, quantity=f"{sooner} at the end", sense="upper", holds_in="every run",
            heuristic=True, bound=bound,
        )  # fmt: skip

    return [of(FIRST, "top", "actual"), of(LAST, "actual", "bottom")]


def certificates(config: Any, record: Record) -> list[Certificate]:
    """T2 of each kind of labels."""
    return [c for kind in KINDS for c in judged(record, kind) if c.name.startswith((ABOVE, BELOW))]


def tables(config: Any, record: Record) -> dict[str, pd.DataFrame]:
    """The loss at the end, what was forecast from the start and from the last checkpoint, and the MLP's."""
    rows = []
    for kind in KINDS:
        own = of_arm(record, kind)
        rows.append(
            {
                "labels": kind, "loss at the end": last(record, f"{kind} at the end"),
                "forecast": last(own, "forecast"), "re-anchored": last(own, "reanchored"),
                "drift": last(own, "drift"), "MLP": last(record, f"MLP, {kind} at the end"),
                "better": least(
                    KAN=last(record, f"{kind} at the end"), MLP=last(record, f"MLP, {kind} at the end")
                ),
            }
        )  # fmt: skip
    m, steps = SIZES[config.size]
    title = f"{ROWS} rows of diabetes, m = {m}, {steps} steps of 1/lambda_max, labels of one size"
    return {title: pd.DataFrame(rows)}
