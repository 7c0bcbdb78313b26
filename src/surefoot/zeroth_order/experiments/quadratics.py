"""Exact laws and the explicit bound on quadratics whose constants are known (parts law and bound)."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from surefoot.guarantee import Guarantee
from surefoot.record import Record
from surefoot.zeroth_order.bounds import Bound, Constants, lozo_bound
from surefoot.zeroth_order.guarantee import contraction_guarantee, gradient_guarantee
from surefoot.zeroth_order.lozo import LOZO

REPLICAS = {"quick": 40, "standard": 200, "paper": 1000}
PERIODS = 4


@dataclass(frozen=True)
class Law:
    """One setting with a closed law; the record's steps are periods."""

    name: str
    nu: int
    v_dist: str
    m: int = 4
    n: int = 6
    r: int = 2
    alpha: float = 0.02


LAWS = (
    Law("energy, Gaussian V, nu 1", 1, "gaussian"),
    Law("energy, orthogonal V, nu 1", 1, "orthogonal"),
    Law("energy, orthogonal V, nu 5", 5, "orthogonal"),
)


def run_law(config: Any, seed: int, record: Record) -> None:
    """Mean over replicas of ||X - X*||^2 / ||X_0 - X*||^2 after each period."""
    for law in LAWS:
        generator = torch.Generator().manual_seed(4)
        target = torch.randn(law.m, law.n, generator=generator, dtype=torch.float64)
        totals = torch.zeros(PERIODS, dtype=torch.float64)
        count = REPLICAS[config.size]
        for replica in range(count):
            x = nn.Parameter(torch.zeros(law.m, law.n, dtype=torch.float64))
            optimizer = LOZO(
                [x], law.alpha, rank=law.r, nu=law.nu, eps=1e-2, v_dist=law.v_dist,
                seed=seed * count + replica,
            )  # fmt: skip
            for k in range(PERIODS):
                for _ in range(law.nu):
                    optimizer.step(functools.partial(_distance, x, target))
                totals[k] += (x.detach() - target).square().sum() / target.square().sum()
            optimizer.note_facts(record, seed, law.name)
        for k in range(PERIODS):
            record.append(seed, k + 1, **{law.name: float(totals[k]) / count})


def _distance(x: Tensor, target: Tensor) -> Tensor:
    return (x - target).square().sum() / 2


def law_guarantees(config: Any) -> list[Guarantee]:
    """An equality in expectation, within a twentieth."""
    return [contraction_guarantee(law.name, of=law.name) for law in LAWS]


@dataclass(frozen=True)
class Block:
    """Matrices with Hessian diag(linspace(.05, 1)) in every row, so that L = 1."""

    name: str
    shapes: tuple[tuple[int, int], ...]
    r: int
    nu: int
    periods: int
    sigma: float

    def start(self) -> list[Tensor]:
        """Where every run begins."""
        generator = torch.Generator().manual_seed(99)
        return [torch.randn(s, generator=generator, dtype=torch.float64) for s in self.shapes]

    def hessian(self) -> list[Tensor]:
        """Of each row of each matrix."""
        return [torch.linspace(0.05, 1, n, dtype=torch.float64) for _, n in self.shapes]

    def constants(self) -> Constants:
        """L, sigma^2 and f(X_0) - f*."""
        delta0 = sum(
            float((h * x.square()).sum()) / 2
            for h, x in zip(self.hessian(), self.start(), strict=True)
        )
        return Constants(1.0, self.sigma**2, delta0)

    def bound(self) -> Bound:
        """At the best rate."""
        steps = self.nu * self.periods
        return lozo_bound(self.shapes, self.r, self.nu, steps, *self.constants())


BLOCKS = (
    Block("8x12, r 2, nu 5", ((8, 12),), 2, 5, 60, 0.0),
    Block("8x12, r 2, nu 5, noise 1", ((8, 12),), 2, 5, 60, 1.0),
    Block("two blocks, r 2, nu 10, noise .5", ((8, 12), (6, 9)), 2, 10, 40, 0.5),
    Block("8x12, r 4, nu 1", ((8, 12),), 4, 1, 300, 0.0),
)


def run_bound(config: Any, seed: int, record: Record) -> None:
    """The mean of ||grad f||^2 over period starts, at the bound's own rate."""
    for block in BLOCKS:
        x = [nn.Parameter(p) for p in block.start()]
        hessian = block.hessian()
        generator = torch.Generator().manual_seed(seed)
        size = sum(m * n for m, n in block.shapes)
        optimizer = LOZO(
            x, block.bound().alpha, rank=block.r, nu=block.nu, v_dist="orthogonal", seed=seed
        )
        optimizer.record_into(record, seed, block.name)
        for t in range(block.nu * block.periods):
            if t % block.nu == 0:
                optimizer.measure_gradient(_squared_gradient(x, hessian))
            noise = [
                block.sigma / math.sqrt(size) * torch.randn(p.shape, generator=generator).double()
                for p in x
            ]
            optimizer.step(functools.partial(_loss, x, hessian, noise))
        optimizer.fd_error(functools.partial(_loss, x, hessian, noise))


def _squared_gradient(x: Iterable[Tensor], hessian: Iterable[Tensor]) -> float:
    return sum(float((h * p.detach()).square().sum()) for h, p in zip(hessian, x, strict=True))


def _loss(x: Iterable[Tensor], hessian: Iterable[Tensor], noise: Iterable[Tensor]) -> Tensor:
    parts = [
        (h * p.square()).sum() / 2 + (e * p).sum()
        for p, h, e in zip(x, hessian, noise, strict=True)
    ]
    return torch.stack(parts).sum()


def bound_guarantees(config: Any) -> list[Guarantee]:
    """Every constant is known: the bound is a number."""
    return [
        gradient_guarantee(
            L=b.constants().L,
            sigma2=b.constants().sigma2,
            delta0=b.constants().delta0,
            how="in closed form",
            of=b.name,
            name=f"bound: {b.name}",
        )
        for b in BLOCKS
    ]


def bound_tables(config: Any, record: Record) -> dict[str, pd.DataFrame]:
    """How far the bound is from what happens."""
    rows = []
    for block in BLOCKS:
        bound, found = block.bound(), record.constant(f"{block.name}.mean_squared_gradient")
        rows.append(
            {
                "quadratic": block.name, "alpha": bound.alpha, "bound": bound.value,
                "measured, mean": found.mean(), "bound / measured": bound.value / found.mean(),
            }
        )  # fmt: skip
    return {"mean squared gradient at period starts": pd.DataFrame(rows)}
