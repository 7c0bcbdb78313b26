"""-Lap u = f on the square: what gradient descent is forecast to do, and what L-BFGS reaches in practice.

u = sin(pi x) sin(pi y) on [-1, 1]^2, for splines of degree 3, 4 and 5. The theory's run has few points and
many neurons: its residual is forecast and falls, and u is not found. The practical run has many points and
few neurons, beside a tanh MLP 2-32-32-1 with the same points, weights and iterations.
"""

from __future__ import annotations

import math
import warnings
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float64
from torch import Tensor, nn

from surefoot._problems.arms import keep
from surefoot.certificate import Certificate
from surefoot.guarantee import Verdict
from surefoot.kan.experiments.arms import judged
from surefoot.kan.fit import fit_gd
from surefoot.kan.fresh import FreshCheck
from surefoot.kan.guarantee import ABOVE, BELOW, CONDITIONED, CONFINED, CONTRACTION, RATE
from surefoot.kan.lbfgs import fit_lbfgs
from surefoot.kan.physics import PIKAN
from surefoot.kan.residual import PDEResidual
from surefoot.kan.two_layer import KAN2
from surefoot.record import Record

DEGREES = (3, 4, 5)
THEORY = {"quick": (64, 60), "standard": (256, 1500), "paper": (256, 1500)}
"""Neurons and steps of gradient descent, on 6 x 6 points inside and 16 on the boundary."""
PRACTICE = {"quick": (12, 15, 60), "standard": (20, 30, 150), "paper": (20, 30, 150)}
"""Points inside along one side, boundary points a side, iterations of L-BFGS."""
MLP = "MLP, L-BFGS"
FRESH = 41
CHECKED = ("trained", "fresh", "boundary", "error")
EXPECTS = {
    f"{name}, k = {k}, gradient descent": Verdict.NOT_PROMISED
    for name in (RATE, CONTRACTION, CONFINED, CONDITIONED, ABOVE, BELOW)
    for k in DEGREES
}


def solution(x: Float64[Tensor, "n 2"]) -> Float64[Tensor, " n"]:
    """sin(pi x) sin(pi y)."""
    return torch.sin(math.pi * x[:, 0]) * torch.sin(math.pi * x[:, 1])


def equation() -> PDEResidual:
    """-Lap u = 2 pi^2 sin(pi x) sin(pi y)."""
    return PDEResidual.poisson(lambda x: 2 * math.pi**2 * solution(x))


def inside(n: int) -> Float64[Tensor, "points 2"]:
    """n x n points of the square, equally far apart from each other and from the boundary."""
    t = torch.linspace(-1, 1, n + 2, dtype=torch.float64)[1:-1]
    return torch.cartesian_prod(t, t)


def boundary(n: int) -> Float64[Tensor, "points 2"]:
    """n points a side, equally far apart, the corners among them."""
    t = torch.linspace(-1, 1, n + 1, dtype=torch.float64)[:-1]
    one = torch.ones_like(t)
    sides = ((t, -one), (one, t), (-t, one), (-one, -t))
    return torch.cat([torch.stack(side, 1) for side in sides])


def fresh() -> Float64[Tensor, "n 2"]:
    """The centres of 41 x 41 cells."""
    t = (2 * torch.arange(FRESH, dtype=torch.float64) + 1) / FRESH - 1
    return torch.cartesian_prod(t, t)


class TanhMLP(nn.Module):
    """2-32-32-1 with tanh in float64, torch's own start from a seed of its own."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.layers = nn.Sequential(
                nn.Linear(2, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 1)
            ).double()

    def forward(self, x: Tensor) -> Tensor:
        """u at the points (n, 2), shape (n,)."""
        found: Tensor = self.layers(x)
        return found.squeeze(1)


def checked(problem: PIKAN) -> FreshCheck:
    """The check on fresh points; the tables say what its warning would."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return problem.check(fresh(), solution)


def _store(record: Record, seed: int, arm: str, problem: PIKAN) -> None:
    found = checked(problem)
    numbers = {f"{arm}: {name}": getattr(found, name) for name in CHECKED}
    parameters = sum(p.numel() for p in problem.parameters)
    record.update(seed, 0, numbers | {f"{arm}: parameters": float(parameters)})
    problem.note(record, seed, arm)
    record.note(seed, arm, solved=found.trusted)


def practical(model: nn.Module, points: int, edge: int, iterations: int) -> tuple[PIKAN, Record]:
    """The practical run of one model."""
    problem = PIKAN(model, equation(), inside(points), boundary(edge))
    return problem, fit_lbfgs(problem, iterations).record


def run(config: Any, seed: int, record: Record) -> None:
    """Both runs of each degree, and the MLP's."""
    m, steps = THEORY[config.size]
    for k in DEGREES:
        arm = f"k = {k}, gradient descent"
        start = KAN2(2, m, spline_order=k, seed=seed)
        problem = PIKAN(start, equation(), inside(6), boundary(4))
        ran = fit_gd(problem, steps=steps, every=max(1, steps // 5))
        keep(record, seed, arm, ran.record)
        record.update(seed, 0, {f"{arm}: violations": float(ran.violations)})
        _store(record, seed, arm, problem)
    models: dict[str, nn.Module] = {
        f"k = {k}, L-BFGS": KAN2(2, 8, grid_size=6, spline_order=k, seed=seed) for k in DEGREES
    }
    models[MLP] = TanhMLP(seed)
    for arm, model in models.items():
        problem, own = practical(model, *PRACTICE[config.size])
        keep(record, seed, arm, own)
        _store(record, seed, arm, problem)


def certificates(config: Any, record: Record) -> list[Certificate]:
    """T1 and T2 of gradient descent at each degree; of L-BFGS nothing is promised."""
    return [c for k in DEGREES for c in judged(record, f"k = {k}, gradient descent")]


def tables(config: Any, record: Record) -> dict[str, pd.DataFrame]:
    """Losses with their forecasts, and what they are worth on fresh points."""
    few, many = [], []
    for k in DEGREES:
        arm = f"k = {k}, gradient descent"
        few.append(
            {
                "degree": k,
                "lambda0": _first(record, f"{arm}: lambda0"),
                "lambda_max": _first(record, f"{arm}: lambda_max"),
                "loss at the start": _first(record, f"{arm}: loss"),
                "loss at the end": _last(record, f"{arm}: loss"),
                "forecast": _last(record, f"{arm}: forecast"),
                "re-anchored": _last(record, f"{arm}: reanchored"),
                "T1's promise": _promised(record, arm),
                "violations": _first(record, f"{arm}: violations"),
                "relative L2 error": _first(record, f"{arm}: error"),
                "solved": _solved(record, arm),
            }
        )
    arms = [f"k = {k}, L-BFGS" for k in DEGREES] + [MLP]
    best = min(arms, key=lambda arm: _first(record, f"{arm}: error"))
    for arm in arms:
        errors = record.constant(f"{arm}: error")
        many.append(
            {
                "model": arm,
                "parameters": int(_first(record, f"{arm}: parameters")),
                "loss at the end": _last(record, f"{arm}: loss"),
                "residual, trained": _first(record, f"{arm}: trained"),
                "residual, fresh": _first(record, f"{arm}: fresh"),
                "relative L2 error": float(errors.mean()),
                "worst seed": float(errors.max()),
                "solved": _solved(record, arm),
                "best": arm == best,
            }
        )
    m, steps = THEORY[config.size]
    points, edge, iterations = PRACTICE[config.size]
    return {
        f"theory: m = {m}, 36 + 16 points, {steps} steps of 1/lambda_max; "
        "a small residual on few points solves nothing": pd.DataFrame(few),
        f"practice: {points}^2 + {4 * edge} points, {iterations} iterations of L-BFGS": pd.DataFrame(
            many
        ),
    }


def _first(record: Record, quantity: str) -> float:
    return float(record[quantity][:, 0].mean())


def _last(record: Record, quantity: str) -> float:
    return float(record[quantity][:, -1].mean())


def _promised(record: Record, arm: str) -> float:
    """(1 - eta lambda0 / 2)^T L_0, whether or not its conditions hold."""
    loss, lambda0 = record[f"{arm}: loss"], record[f"{arm}: lambda0"][:, 0]
    eta = [float(v[0]) for v in record.fact("eta", arm).values.values()]
    steps = loss.shape[1] - 1
    each = [(1 - e * v / 2) ** steps * own[0] for e, v, own in zip(eta, lambda0, loss, strict=True)]
    return float(sum(each)) / len(each)


def _solved(record: Record, arm: str) -> str:
    """In how many seeds the check on fresh points was passed."""
    told = record.fact("solved", arm).values.values()
    return f"{sum(v == (True,) for v in told)} of {len(told)}"
