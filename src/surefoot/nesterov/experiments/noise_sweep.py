"""Multiplicative and additive gradient noise, where plain Nesterov momentum diverges.

Quadratics by the exact expectation oracle (no Monte Carlo), the same with random runs, and a sphere,
where the bound is a heuristic: tangential multiplicative noise is not covered by the derivation.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from surefoot.guarantee import Guarantee
from surefoot.nesterov.decreasing_nag import DecreasingNAG
from surefoot.nesterov.experiments.ledgers import carry_facts
from surefoot.nesterov.guarantee import accelerated_rate, curved_rate, decreasing_rate
from surefoot.nesterov.optimizer import AGNES
from surefoot.nesterov.oracle import Noise, exact_quadratic_expectation
from surefoot.nesterov.parameters import AgnesParams, agnes_parameters
from surefoot.record import Record

LAMBDAS = (1.0, 500.0)
ORACLE_STEPS = 2000
SIGMAS = (0.0, 0.5, 1.0, 3.0, 10.0)
ORACLE: dict[str, tuple[float, float, Noise]] = {
    **{f"oracle, sigma_m = {sm:g}, isotropic": (sm, 0.0, "isotropic") for sm in SIGMAS},
    **{f"oracle, sigma_m = {sm:g}, colinear": (sm, 0.0, "colinear") for sm in SIGMAS},
    **{f"oracle, sigma_m = {sm:g}, sigma_a = 1": (sm, 1.0, "isotropic") for sm in (0.0, 0.5, 3.0)},
}
NAG_DIVERGES = "oracle, NAG with eta = 1/L, sigma_m = 1"
RUNS = 200
RUN_STEPS = 200
SPHERE_MU = 0.02


def nag_parameters(mu: float, L: float) -> AgnesParams:
    """NAG with eta = 1/L, whatever the noise."""
    return agnes_parameters(mu, L)


def run_oracle(config: Any, seed: int, record: Record) -> None:
    """E f(x_n) on a quadratic with condition number 500, by exact moment recursion."""
    mu, L = min(LAMBDAS), max(LAMBDAS)
    for name, (sm, sa, noise) in ORACLE.items():
        values = exact_quadratic_expectation(
            LAMBDAS, (1.0, 1.0), agnes_parameters(mu, L, sm), sm, sa, ORACLE_STEPS, noise=noise
        )
        record.extend(seed, name, values)
        _note_oracle(record, seed, name, agnes_parameters(mu, L, sm), sm, sa, noise)
    values = exact_quadratic_expectation(
        LAMBDAS, (1.0, 1.0), nag_parameters(mu, L), 1.0, 0.0, 300, noise="isotropic"
    )
    record.extend(seed, NAG_DIVERGES, values)
    _note_oracle(record, seed, NAG_DIVERGES, nag_parameters(mu, L), 1.0, 0.0, "isotropic")


def _note_oracle(
    record: Record, seed: int, name: str, params: AgnesParams, sm: float, sa: float, noise: Noise
) -> None:
    """The oracle follows the moments of AGNES from rest, on every parameter, without weight decay."""
    record.note(
        seed, name, optimizer="AGNES", implementation="exact moments", eta=params.eta,
        alpha=params.alpha, rho=params.rho, hyperparameters_changed=False, start="rest",
        weight_decay=0.0, maximize=False, all_parameters=True, sigma_mult=sm, sigma_add=sa, noise=noise,
    )  # fmt: skip


def _quadratic_guarantee(name: str, lambdas: tuple[float, ...], *, every_run: bool) -> Guarantee:
    return accelerated_rate(
        name,
        mu=min(lambdas),
        L=max(lambdas),
        dist0_sq=float(len(lambdas)),
        how="exact: the spectrum of the quadratic",
        of=name,
        name=name,
        every_run=every_run,
    )


def oracle_guarantees(config: Any) -> list[Guarantee]:
    """The bound for every noise, on the exact expectation: no statistics are needed."""
    return [_quadratic_guarantee(name, LAMBDAS, every_run=True) for name in (*ORACLE, NAG_DIVERGES)]


def _isotropic(gradient: Tensor, sm: float, sa: float, generator: torch.Generator) -> Tensor:
    """A stochastic gradient for each row: E|g - grad|^2 = sa^2 + sm^2 |grad|^2, spread evenly."""
    noise = torch.randn(gradient.shape, dtype=gradient.dtype, generator=generator)
    scale = (sa**2 + sm**2 * (gradient**2).sum(dim=1, keepdim=True)) / gradient.shape[1]
    return gradient + scale.sqrt() * noise


def many_runs(
    make: Callable[[list[Tensor]], Any],
    start: Tensor,
    f: Callable[[Tensor], Tensor],
    sm: float,
    sa: float,
    steps: int,
    seed: int,
    record: Record,
    name: str,
) -> None:
    """Record the mean of f(x_n) over the rows of one tensor, each an independent run of the optimizer."""
    generator = torch.Generator().manual_seed(seed)
    x = start.clone().requires_grad_()
    optimizer = make([x])
    means = []
    for _ in range(steps):
        with optimizer.iterate(), torch.no_grad():
            means.append(float(f(x).mean()))
        (gradient,) = torch.autograd.grad(f(x).sum(), x)
        x.grad = _isotropic(gradient, sm, sa, generator)
        optimizer.step()
    record.extend(seed, name, means)
    carry_facts(optimizer.record, record, seed, name)
    record.note(seed, name, sigma_mult=sm, sigma_add=sa, noise="isotropic")


SMALL = (1.0, 20.0)
RANDOM, RANDOM_DECREASING = "AGNES, sigma_m = 1", "decreasing step, sigma_a = 1"


def _quadratic(x: Tensor) -> Tensor:
    return 0.5 * (x**2 * torch.tensor(SMALL, dtype=x.dtype)).sum(dim=1)


def run_random(config: Any, seed: int, record: Record) -> None:
    """The real optimizers on a quadratic; each seed is the mean of 200 independent runs."""
    start = torch.ones(RUNS, len(SMALL), dtype=torch.float64)
    mu, L = min(SMALL), max(SMALL)
    many_runs(
        lambda p: AGNES.from_constants(p, mu=mu, L=L, sigma_mult=1.0),
        start, _quadratic, 1.0, 0.0, RUN_STEPS, seed, record, RANDOM,
    )  # fmt: skip
    many_runs(
        lambda p: DecreasingNAG(p, mu=mu, L=L), start, _quadratic, 0.0, 1.0, RUN_STEPS, seed, record,
        RANDOM_DECREASING,
    )  # fmt: skip


def random_guarantees(config: Any) -> list[Guarantee]:
    """The bounds on the expectation, tested on random runs."""
    return [
        _quadratic_guarantee(RANDOM, SMALL, every_run=False),
        decreasing_rate(
            RANDOM_DECREASING, mu=min(SMALL), L=max(SMALL), dist0_sq=float(len(SMALL)),
            how="exact: the spectrum of the quadratic", of=RANDOM_DECREASING, name=RANDOM_DECREASING,
        ),
    ]  # fmt: skip


def _sphere(x: Tensor) -> Tensor:
    radius: Tensor = torch.linalg.vector_norm(x[:, :3], dim=1)
    return 0.5 * SPHERE_MU * (radius - 1) ** 2 + 0.5 * (x[:, 3:] ** 2).sum(dim=1)


SPHERE_START = (1.6, 1.2, 0.9, 1.0, -1.0, 0.5)
SPHERE_NOISES = (1.0, 3.0)
SPHERE_NAG = "sphere, NAG, sigma_m = 1"


def run_sphere(config: Any, seed: int, record: Record) -> None:
    """AGNES and plain NAG on the sphere with isotropic multiplicative noise."""
    start = torch.tensor(SPHERE_START, dtype=torch.float64).repeat(RUNS, 1)
    for sm in SPHERE_NOISES:
        make = functools.partial(AGNES.from_constants, mu=SPHERE_MU, L=1.0, sigma_mult=sm)
        name = f"sphere, sigma_m = {sm:g}"
        many_runs(make, start, _sphere, sm, 0.0, RUN_STEPS, seed, record, name)
    nag = nag_parameters(SPHERE_MU, 1.0)
    many_runs(
        lambda p: AGNES(p, lr=nag.alpha, correction=nag.eta, momentum=nag.rho),
        start, _sphere, 1.0, 0.0, RUN_STEPS, seed, record, SPHERE_NAG,
    )  # fmt: skip


def sphere_guarantees(config: Any) -> list[Guarantee]:
    """Heuristic claims: the bound of flat minimisers carried over to a curved manifold."""
    start = torch.tensor(SPHERE_START, dtype=torch.float64)
    radius = float(torch.linalg.vector_norm(start[:3]))
    distance = (radius - 1) ** 2 + float((start[3:] ** 2).sum())
    names = [*(f"sphere, sigma_m = {sm:g}" for sm in SPHERE_NOISES), SPHERE_NAG]
    return [curved_rate(name, dist0_sq=distance, of=name, name=name) for name in names]


def oracle_tables(config: Any, record: Record) -> dict[str, pd.DataFrame]:
    """Worst ratio of the exact expectation to its bound, for each noise."""
    rows = []
    for g in oracle_guarantees(config):
        measured, promised = record[g.quantity][0], np.atleast_2d(g.bound(record))[0]
        rows.append(
            {
                "noise": g.name,
                "worst E f / bound": float((measured / promised).max()),
                "last E f": float(measured[-1]),
                "last bound": float(promised[-1]),
            }
        )
    return {"expectation and bound": pd.DataFrame(rows)}
