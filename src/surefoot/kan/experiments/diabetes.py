"""Real diabetes data: a monitored run and its forecast; errors on held-out rows, beside ridge and an MLP."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from jaxtyping import Float64
from sklearn.linear_model import Ridge
from torch import Tensor, nn

from surefoot._problems.arms import keep, last, least, of_arm
from surefoot._problems.real import real
from surefoot.certificate import Certificate
from surefoot.guarantee import Verdict
from surefoot.kan.experiments.arms import judged, mlp, rmse
from surefoot.kan.experiments.figures import loss_figure
from surefoot.kan.guarantee import CONDITIONED, CONFINED, CONTRACTION, RATE
from surefoot.kan.monitoring import monitor
from surefoot.kan.spectrum import tangent
from surefoot.kan.step_sizes import step_size
from surefoot.kan.two_layer import KAN2
from surefoot.record import Record

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

SIZES = {
    "quick": (64, (5, 20, 60)),
    "standard": (256, (5, 20, 80, 300)),
    "paper": (512, (5, 20, 80, 300, 1200)),
}
TRAIN, VALID = 200, 100
PENALTIES = tuple(10.0**e for e in range(-3, 5))
MODELS = ("KAN", "MLP", "ridge")
EXPECTS = {
    f"{name}, KAN": Verdict.NOT_PROMISED for name in (RATE, CONTRACTION, CONFINED, CONDITIONED)
}


@dataclass(frozen=True)
class Table:
    """Rows of features and their values."""

    X: Float64[Tensor, "N d"]
    y: Float64[Tensor, " N"]


@cache
def shuffled() -> Table:
    """All rows as they are; the order is drawn once."""
    X, y = real("diabetes")
    order = torch.randperm(len(X), generator=torch.Generator().manual_seed(0))
    return Table(X[order], y[order].double())


def scaled(table: Table, by: Table) -> Table:
    """Features over the largest size that each has in `by`, values in units of its standard deviation."""
    return Table(table.X / by.X.abs().max(dim=0).values, (table.y - by.y.mean()) / by.y.std())


def split(seed: int) -> tuple[Table, Table, Table]:
    """200 rows to train on, 100 to choose by, the rest to judge by; a seed's own.

    Scaled by the training rows alone: others may lie a little off the grid.
    """
    table = shuffled()
    order = torch.randperm(len(table.y), generator=torch.Generator().manual_seed(1000 + seed))
    parts = order[:TRAIN], order[TRAIN : TRAIN + VALID], order[TRAIN + VALID :]
    first, *others = (Table(table.X[i], table.y[i]) for i in parts)
    valid, test = (scaled(other, first) for other in others)
    return scaled(first, first), valid, test


def run(config: Any, seed: int, record: Record) -> None:
    """Each network stops, and ridge is shrunk, where the validation rows say."""
    m, stops = SIZES[config.size]
    train, valid, test = split(seed)
    for kind, model in {
        "KAN": KAN2(10, m, symmetric=True, seed=seed),
        "MLP": mlp(10, m, seed),
    }.items():
        _trained(record, seed, kind, model, stops, train, valid, test)
    fits = [Ridge(alpha=a).fit(train.X.numpy(), train.y.numpy()) for a in PENALTIES]

    def error(fit: Ridge, on: Table) -> float:
        return float(((fit.predict(on.X.numpy()) - on.y.numpy()) ** 2).mean() ** 0.5)

    best = min(range(len(fits)), key=lambda i: error(fits[i], valid))
    record.update(
        seed, 0, {"ridge: test error": error(fits[best], test), "ridge: choice": PENALTIES[best]}
    )


def _trained(
    record: Record, seed: int, kind: str, model: nn.Module, stops: tuple[int, ...],
    train: Table, valid: Table, test: Table,
) -> None:  # fmt: skip
    """A plain loop of torch.optim.SGD at 1 / lambda_max, watched by the monitor."""
    eta = step_size(tangent(model, train.X))
    optimizer, errors = torch.optim.SGD(model.parameters(), lr=eta), {}
    with monitor(model, train.X, train.y, eta=eta, every=20, seed=seed) as m:
        for t in range(1, stops[-1] + 1):
            loss = 0.5 * ((model(train.X).reshape(-1) - train.y) ** 2).sum()
            optimizer.zero_grad()
            loss.backward()
            m.step(loss.detach())
            optimizer.step()
            if t in stops:
                errors[t] = (rmse(model, valid.X, valid.y), rmse(model, test.X, test.y))
    keep(record, seed, kind, m.record)
    best = min(errors, key=lambda stop: errors[stop][0])
    record.update(
        seed, 0,
        {f"{kind}: test error": errors[best][1], f"{kind}: choice": float(best), f"{kind}: eta": eta},
    )  # fmt: skip


def certificates(config: Any, record: Record) -> list[Certificate]:
    """T1 and T2 of the network's run; of the MLP nothing is claimed."""
    return judged(record, "KAN")


def tables(config: Any, record: Record) -> dict[str, pd.DataFrame]:
    """Errors on rows that nothing was chosen by, the best one named; then the forecast."""
    errors = {kind: last(record, f"{kind}: test error") for kind in MODELS}
    choices = {"KAN": "steps", "MLP": "steps", "ridge": "penalty"}
    compared = pd.DataFrame(
        [
            {"model": kind, "chosen": choices[kind], "mean choice": last(record, f"{kind}: choice"),
             "test error (sd 1)": error, "better": least(**errors)}
            for kind, error in errors.items()
        ]
    )  # fmt: skip
    own = of_arm(record, "KAN")
    curves = own.curves("loss")
    shown = [i for i, t in enumerate(curves.steps) if t in SIZES[config.size][1]]
    ahead = pd.DataFrame(
        [
            {"step": int(curves.steps[i]), "loss": float(own["loss"][:, i].mean()),
             "forecast": float(own["forecast"][:, i].mean()),
             "re-anchored": float(own["reanchored"][:, i].mean())}
            for i in shown
        ]
    )  # fmt: skip
    m = SIZES[config.size][0]
    return {
        f"diabetes, {TRAIN} rows to train, {VALID} to choose by, m = {m}, mean over seeds": compared,
        "what the spectrum forecast of the network's training loss": ahead,
    }


def figures(config: Any, record: Record) -> dict[str, Figure]:
    """Loss and forecasts of the first seed."""
    return {"diabetes: loss and forecasts": loss_figure(of_arm(record, "KAN"))}
