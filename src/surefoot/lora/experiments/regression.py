"""Ridge regression (Figure 2 of the paper) and softmax regression on digits: the promise beside the run.

Ridge: 300 rows, a 6 x 20 weight, L2 0.1, both sides and several ranks with exact gradients, then SGD
(batches of 30) and random reshuffling (10 parts). Digits: a 10 x 64 weight, L2 0.05, two ranks with
equal r T. One block is one step of stock SGD through PEFT.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
import torch

from surefoot.guarantee import Guarantee
from surefoot.lora.bounds import RateLaw, blocks_to, largest_step
from surefoot.lora.config import RacConfig
from surefoot.lora.experiments.problems import Problem, digits_softmax, ridge
from surefoot.lora.experiments.runs import chain_on, descend
from surefoot.lora.guarantee import Constants, descent, linear_rate, stationarity
from surefoot.record import Record

RANKS = (1, 2, 4)
BLOCKS = {"quick": 60, "standard": 400, "paper": 400}
# Within its range a promise on the mean takes the more seeds the further it has fallen: quick makes many
# short runs, whose promises can be decided; standard and paper few long ones, whose cannot.
FALLEN = {"quick": 0.5, "standard": 1e-6, "paper": 1e-6}
LEVEL = {"quick": 0.5, "standard": 1e-2, "paper": 1e-2}
NOISE_BLOCKS = {"quick": 20, "standard": 400, "paper": 400}
DIGIT_BLOCKS = {"quick": 96, "standard": 6000, "paper": 6000}  # r T
DIGIT_RANKS = (4, 16)
BATCH, PARTS = 30, 10


def run_ridge(config: Any, seed: int, record: Record) -> None:
    """Ranks and sides with exact gradients."""
    problem = ridge()
    for train in ("B", "A"):
        for r in RANKS:
            chain = chain_on(problem, r, RacConfig(train=train, steps_per_block=1, seed=seed))
            ran = descend(problem, chain, 1 / problem.L, _blocks(problem, train, r, config.size))
            ran.into(record, seed, problem.f_star, of=f"train {train}, r = {r}")


def _blocks(problem: Problem, train: str, r: int, size: str) -> int:
    """At most until the promise is a share of the start, and before rounding decides a verdict."""
    lam = r / (problem.n if train == "B" else problem.m)
    until = blocks_to(FALLEN[size], gamma=1 / problem.L, lam=lam, mu=problem.mu)
    return min(BLOCKS[size], until)


def ridge_guarantees(config: Any) -> Iterable[Guarantee]:
    """G1, G2 and G3 for each arm."""
    problem = ridge()
    for train in ("B", "A"):
        for r in RANKS:
            yield from _three(problem, f"train {train}, r = {r}")


def _three(problem: Problem, arm: str) -> Iterable[Guarantee]:
    c = Constants(problem.L, problem.mu)
    yield from (descent(c, arm), stationarity(c, of=arm), linear_rate(c, of=arm))


def first_below(gap: np.ndarray, level: float) -> int | None:
    """The first block at which the mean gap is below a share of its start."""
    mean = gap.mean(axis=0)
    at = np.flatnonzero(mean < level * mean[0])
    return int(at[0]) if len(at) else None


def ridge_tables(config: Any, record: Record) -> dict[str, pd.DataFrame]:
    """Blocks to a share of the first gap, and the r/n law."""
    rows, level = [], LEVEL[config.size]
    for train in ("B", "A"):
        d = ridge().n if train == "B" else ridge().m
        for r in RANKS:
            gap = record[f"train {train}, r = {r}: gap"]
            blocks = first_below(gap, level)
            rows.append(
                {
                    "train": train, "r": r, "r/d": r / d, f"blocks to {level:g}": blocks,
                    "times r/d": None if blocks is None else blocks * r / d,
                    "last relative gap": float(gap[:, -1].mean() / gap[:, 0].mean()),
                }
            )  # fmt: skip
    return {"ridge: speed is proportional to the rank": pd.DataFrame(rows)}


def run_noise(config: Any, seed: int, record: Record) -> None:
    """SGD with replacement, and one reshuffled epoch a block, over a fixed split into parts."""
    problem = ridge()
    laws: tuple[RateLaw, ...] = ("sgd", "rr")
    for law in laws:
        steps = PARTS if law == "rr" else 1
        chain = chain_on(problem, 4, RacConfig(steps_per_block=steps, seed=seed))
        ran = descend(
            problem, chain, noise_step(law), NOISE_BLOCKS[config.size], steps=steps,
            parts=parts(), order="shuffle" if law == "rr" else "draw", seed=seed,
        )  # fmt: skip
        ran.into(record, seed, problem.f_star, of=law)


def parts() -> list[torch.Tensor]:
    """The ten parts of the data whose losses are the component functions."""
    order = torch.randperm(300, generator=torch.Generator().manual_seed(0))
    return list(torch.split(order, BATCH))


def noise_constants(law: RateLaw) -> Constants:
    """Smoothness is that of the worst part where parts are reshuffled; the variance is on record."""
    problem = ridge()
    x = problem.features
    worst = max(
        float(torch.linalg.eigvalsh(x[p].T @ x[p] / BATCH)[-1]) + problem.l2 for p in parts()
    )
    return Constants(
        problem.L if law == "sgd" else worst, problem.mu, sigma2=None,
        how_sigma2="exact: the largest over all parts at every block of every run",
    )  # fmt: skip


def noise_step(law: RateLaw) -> float:
    """The longest step that the theorem allows."""
    return largest_step(law, noise_constants(law).L, PARTS)


def noise_guarantees(config: Any) -> Iterable[Guarantee]:
    """G4 and G5, with the largest variance that any run met."""
    laws: tuple[RateLaw, ...] = ("sgd", "rr")
    for law in laws:
        for make in (stationarity, linear_rate):
            yield make(noise_constants(law), law, of=law)


def run_digits(config: Any, seed: int, record: Record) -> None:
    """Softmax regression at two ranks with equal r T, so that one promise serves both."""
    problem = digits_softmax()
    for r in DIGIT_RANKS:
        chain = chain_on(problem, r, RacConfig(steps_per_block=1, seed=seed), alpha=2 * r)
        ran = descend(problem, chain, 1 / problem.L, DIGIT_BLOCKS[config.size] // r)
        ran.into(record, seed, problem.f_star, of=f"r = {r}")


def digits_guarantees(config: Any) -> Iterable[Guarantee]:
    """G1, G2 and G3 at each rank."""
    problem = digits_softmax()
    for r in DIGIT_RANKS:
        yield from _three(problem, f"r = {r}")


def digits_tables(config: Any, record: Record) -> dict[str, pd.DataFrame]:
    """Equal r T gives equal gaps, and what the free estimate said."""
    rows = []
    for r in DIGIT_RANKS:
        gap = record[f"r = {r}: gap"]
        exact, free = record[f"r = {r}: grad_norm2"], record[f"r = {r}: grad_norm2_estimate"]
        T = gap.shape[1] - 1
        promise = (1 - digits_softmax().mu / digits_softmax().L * r / 64) ** T
        rows.append(
            {
                "r": r, "blocks": T, "relative gap": float(gap[:, -1].mean() / gap[:, 0].mean()),
                "promised": promise, "free / exact squared gradient": float(free.mean() / exact.mean()),
            }
        )  # fmt: skip
    return {"digits softmax: equal r T": pd.DataFrame(rows)}
