"""S2: multiplicative and additive gradient noise, where plain Nesterov momentum diverges.

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

from surefoot.guarantee import Assumption, Guarantee
from surefoot.nesterov.bounds import agnes_bound, decreasing_bound
from surefoot.nesterov.decreasing_nag import DecreasingNAG
from surefoot.nesterov.optimizer import AGNES
from surefoot.nesterov.oracle import Noise, exact_quadratic_expectation
from surefoot.nesterov.parameters import AgnesParams, agnes_parameters
from surefoot.record import Record

SOURCE = "in the setting of arXiv 2302.05515 and 2410.08395; constants derived here"
LATEX = (
    r"\mathbb{E} f(x_n) - f^* \le (1-s)^n L_0"
    r" + \frac{(L\eta^2 + \gamma^2)\,\sigma_a^2}{2s}\left(1-(1-s)^n\right)"
)
STATEMENT = "E f(x_n) - f* <= (1-s)^n L_0 + (L eta^2 + gamma^2) sigma_a^2 / (2s) (1 - (1-s)^n)"
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
    values = exact_quadratic_expectation(
        LAMBDAS, (1.0, 1.0), nag_parameters(mu, L), 1.0, 0.0, 300, noise="isotropic"
    )
    record.extend(seed, NAG_DIVERGES, values)


def _quadratic_guarantee(
    name: str,
    params: AgnesParams,
    sm: float,
    sa: float,
    lambdas: tuple[float, ...],
    *,
    holds_in: Any,
) -> Guarantee:
    mu, L = min(lambdas), max(lambdas)
    f0, distance = sum(lambdas) / 2, float(len(lambdas))
    # E|g|^2 <= (1 + sm2) |grad f|^2 must be paid by gamma^2: the step is short enough iff this holds.
    needed = params.gamma**2
    available = 2 * params.eta - L * params.eta**2 * (1 + sm**2)
    admissible = needed * (1 + sm**2) <= available * (1 + 1e-12) if sm else True
    condition = Assumption(
        "the step is short enough for the noise",
        "gamma^2 (1 + sigma_m^2) <= 2 eta - L eta^2 (1 + sigma_m^2)",
        needed * (1 + sm**2) - available,
        admissible,
        "exact: the noise is drawn with known constants",
    )
    return Guarantee(
        name=name,
        statement=STATEMENT,
        latex=LATEX,
        source=SOURCE,
        quantity=name,
        sense="upper",
        holds_in=holds_in,
        bound=lambda record: np.asarray(
            agnes_bound(record.curves(name).steps, params, f0, distance, mu, L, sigma_add=sa)
        ),
        assumptions=lambda record: (condition,),
    )


def oracle_guarantees(config: Any) -> list[Guarantee]:
    """The bound for every noise, on the exact expectation: no statistics are needed."""
    mu, L = min(LAMBDAS), max(LAMBDAS)
    found = [
        _quadratic_guarantee(
            name, agnes_parameters(mu, L, sm), sm, sa, LAMBDAS, holds_in="every run"
        )
        for name, (sm, sa, _) in ORACLE.items()
    ]
    nag = _quadratic_guarantee(
        NAG_DIVERGES, nag_parameters(mu, L), 1.0, 0.0, LAMBDAS, holds_in="every run"
    )
    return [*found, nag]


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
) -> np.ndarray:
    """Mean of f(x_n) over the rows of one tensor, each row an independent run of the optimizer."""
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
        if not means[-1] < 1e30:
            break
    return np.array(means)


SMALL = (1.0, 20.0)


def _quadratic(x: Tensor) -> Tensor:
    return 0.5 * (x**2 * torch.tensor(SMALL, dtype=x.dtype)).sum(dim=1)


def run_random(config: Any, seed: int, record: Record) -> None:
    """The real optimizers on a quadratic; each seed is the mean of 200 independent runs."""
    start = torch.ones(RUNS, len(SMALL), dtype=torch.float64)
    mu, L = min(SMALL), max(SMALL)
    values = many_runs(
        lambda p: AGNES.from_constants(p, mu=mu, L=L, sigma_mult=1.0),
        start, _quadratic, 1.0, 0.0, RUN_STEPS, seed,
    )  # fmt: skip
    record.extend(seed, "AGNES, sigma_m = 1", values)
    values = many_runs(
        lambda p: DecreasingNAG(p, mu=mu, L=L), start, _quadratic, 0.0, 1.0, RUN_STEPS, seed
    )
    record.extend(seed, "decreasing step, sigma_a = 1", values)


def random_guarantees(config: Any) -> list[Guarantee]:
    """The bounds on the expectation, tested on random runs."""
    mu, L = min(SMALL), max(SMALL)
    decreasing = "decreasing step, sigma_a = 1"
    return [
        _quadratic_guarantee(
            "AGNES, sigma_m = 1", agnes_parameters(mu, L, 1.0), 1.0, 0.0, SMALL,
            holds_in="expectation",
        ),
        Guarantee(
            name=decreasing,
            statement="E f(x_n) - f* <= ((n0-1)(n0-2) L_0 + 4 n sigma_a^2/mu) / ((n+n0-1)(n+n0-2))",
            latex=r"\mathbb{E} f(x_n) - f^* \le"
            r" \frac{(n_0-1)(n_0-2) L_0 + 4n\sigma_a^2/\mu}{(n+n_0-1)(n+n_0-2)}",
            source=SOURCE,
            quantity=decreasing,
            sense="upper",
            holds_in="expectation",
            bound=lambda record: np.asarray(
                decreasing_bound(
                    record.curves(decreasing).steps, sum(SMALL) / 2, float(len(SMALL)), mu, L,
                    sigma_add=1.0,
                )
            ),
        ),
    ]  # fmt: skip


def _sphere(x: Tensor) -> Tensor:
    radius: Tensor = torch.linalg.vector_norm(x[:, :3], dim=1)
    return 0.5 * SPHERE_MU * (radius - 1) ** 2 + 0.5 * (x[:, 3:] ** 2).sum(dim=1)


SPHERE_START = (1.6, 1.2, 0.9, 1.0, -1.0, 0.5)
SPHERE_NOISES = (1.0, 3.0)


def run_sphere(config: Any, seed: int, record: Record) -> None:
    """AGNES and plain NAG on the sphere with isotropic multiplicative noise."""
    start = torch.tensor(SPHERE_START, dtype=torch.float64).repeat(RUNS, 1)
    for sm in SPHERE_NOISES:
        make = functools.partial(AGNES.from_constants, mu=SPHERE_MU, L=1.0, sigma_mult=sm)
        values = many_runs(make, start, _sphere, sm, 0.0, RUN_STEPS, seed)
        record.extend(seed, f"sphere, sigma_m = {sm:g}", values)
    nag = nag_parameters(SPHERE_MU, 1.0)
    values = many_runs(
        lambda p: AGNES(p, lr=nag.alpha, correction=nag.eta, momentum=nag.rho),
        start, _sphere, 1.0, 0.0, RUN_STEPS, seed,
    )  # fmt: skip
    record.extend(seed, "sphere, NAG, sigma_m = 1", values)


def sphere_guarantees(config: Any) -> list[Guarantee]:
    """Heuristic claims: the bound of flat minimisers carried over to a curved manifold."""
    start = torch.tensor([SPHERE_START], dtype=torch.float64)
    f0 = float(_sphere(start))
    radius = float(torch.linalg.vector_norm(start[0, :3]))
    distance = (radius - 1) ** 2 + float((start[0, 3:] ** 2).sum())

    def claim(name: str, params: AgnesParams) -> Guarantee:
        return Guarantee(
            name=name,
            statement="E f(x_n) - f* <= (1-s)^n L_0",
            latex=r"\mathbb{E} f(x_n) - f^* \le (1-s)^n L_0",
            source="observed, not derived: multiplicative noise on a curved manifold",
            quantity=name,
            sense="upper",
            holds_in="expectation",
            bound=lambda record: np.asarray(
                agnes_bound(record.curves(name).steps, params, f0, distance, SPHERE_MU, 1.0)
            ),
            heuristic=True,
        )

    claims = [
        claim(f"sphere, sigma_m = {sm:g}", agnes_parameters(SPHERE_MU, 1.0, sm))
        for sm in SPHERE_NOISES
    ]
    return [*claims, claim("sphere, NAG, sigma_m = 1", nag_parameters(SPHERE_MU, 1.0))]


def oracle_tables(config: Any, record: Record) -> dict[str, pd.DataFrame]:
    """Worst ratio of the exact expectation to its bound, for each noise."""
    rows = []
    for g in oracle_guarantees(config):
        measured, promised = record[g.quantity][0], np.asarray(g.bound(record))
        rows.append(
            {
                "noise": g.name,
                "worst E f / bound": float((measured / promised).max()),
                "last E f": float(measured[-1]),
                "last bound": float(promised[-1]),
            }
        )
    return {"expectation and bound": pd.DataFrame(rows)}
