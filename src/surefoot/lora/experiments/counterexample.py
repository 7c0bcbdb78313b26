"""The paper's 3 x 3 quadratic (Section 3), on which LoRA goes wrong and a chain of LoRA need not.

f(w) = w^T M w + b^T w, M = diag(10, 1, ..., 1), rank 1, b = 10 N(0, I) drawn by the seed. COLA is shown
twice: restarted from a fresh Gaussian factor it converges at small steps (its first step is a step of
RAC-LoRA); restarted from the same factor each time it stalls.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from surefoot.guarantee import Guarantee
from surefoot.lora.chain import ChainOfLora
from surefoot.lora.config import RacConfig, Sketch
from surefoot.lora.errors import ChainStateError
from surefoot.lora.experiments.problems import (
    Problem,
    counterexample,
    counterexample_terms,
)
from surefoot.lora.experiments.runs import DIVERGED, chain_on, descend
from surefoot.lora.guarantee import Constants, add_run, asymm_limit, descent
from surefoot.record import Record

STEPS = {
    "quick": {20: 150, 200: 600},
    "standard": {20: 3000, 200: 20_000},
    "paper": {20: 3000, 200: 20_000},
}
INNER = 10
FRESH, SAME = "COLA, fresh restart", "COLA, same restart"
ARMS = ("GD", "LoRA", FRESH, SAME, "AsymmLoRA", "RAC-LoRA")


def first_row(seed: int) -> Float[np.ndarray, "3"]:
    """The Gaussian row that LoRA and AsymmLoRA begin with."""
    return np.random.default_rng(seed + 100).standard_normal(3)


def first_factor(seed: int) -> Callable[[tuple[int, int], torch.Generator], Tensor]:
    """The sketch that returns that row at every restart."""
    a = first_row(seed)

    def sketch(shape: tuple[int, int], generator: torch.Generator) -> Tensor:
        return torch.from_numpy(a).reshape(shape)

    return sketch


def config_of(arm: str, seed: int) -> RacConfig:
    """What each arm runs; the initial factor is the same for LoRA, AsymmLoRA and the same restart."""
    same: Sketch = first_factor(seed)
    return {
        "GD": RacConfig(method="fpft"),
        "LoRA": RacConfig(method="lora", sketch=same),
        FRESH: RacConfig(method="cola", sketch="gaussian", seed=seed, steps_per_block=INNER),
        SAME: RacConfig(method="cola", sketch=same, steps_per_block=INNER),
        "AsymmLoRA": RacConfig(method="asymm_lora", sketch=same, precondition=True),
        "RAC-LoRA": RacConfig(seed=seed, steps_per_block=1),
    }[arm]


def finish(
    problem: Problem, arm: str, inverse_step: int, steps: int, seed: int
) -> tuple[float, ChainOfLora]:
    """(f - f*) / D0 at the end, infinite where the run diverged, and the chain that ran."""
    chain = chain_on(problem, 1, config_of(arm, seed))
    try:
        run = descend(
            problem,
            chain,
            1 / inverse_step,
            steps,
            gradients=False,
            every=min(50, steps),
            enough=1e-15,
        )
    except ChainStateError:
        return float("inf"), chain  # a chain refuses to merge factors that have overflowed
    gap = run.gap[-1] / run.gap[0]
    return (gap if gap <= DIVERGED else float("inf")), chain


def relative_gap(problem: Problem, arm: str, inverse_step: int, steps: int, seed: int) -> float:
    """(f - f*) / D0 at the end; infinite where the run diverged."""
    return finish(problem, arm, inverse_step, steps, seed)[0]


def run(config: Any, seed: int, record: Record) -> None:
    """Every arm at both step sizes; RAC-LoRA at 1/L with its guarantee."""
    problem = counterexample(seed)
    for inverse, steps in STEPS[config.size].items():
        for arm in ARMS:
            # A gap of infinity is what divergence is; the record takes it as it is.
            gap, chain = finish(problem, arm, inverse, steps, seed)
            record.update(seed, 0, {f"{arm}, step 1/{inverse}": gap})
            if arm == "AsymmLoRA" and inverse == 20:
                value = gap * problem.gap0 + problem.f_star
                add_run(record, seed, chain.record, of=arm)
                record.update(seed, 0, {f"{arm}: limit": value})
                record.extend(seed, f"{arm}: row", chain.layers[0].A[0].tolist())
    chain = chain_on(problem, 1, RacConfig(seed=seed, steps_per_block=1))
    ran = descend(problem, chain, 1 / problem.L, 200, gradients=False)
    ran.into(record, seed, problem.f_star, of="RAC-LoRA")


SCALES = (10.0, 1.0)
PATIENCE = 1000


def run_divergence(config: Any, seed: int, record: Record) -> None:
    """Whether LoRA diverges at 1/L, for two scales of b: a matter of scale, not a law."""
    for scale in SCALES:
        problem = counterexample(seed, scale)
        chain = chain_on(problem, 1, config_of("LoRA", seed))
        run = descend(problem, chain, 1 / problem.L, PATIENCE, gradients=False, every=20)
        gone = not run.gap[-1] <= DIVERGED
        record.update(seed, 0, {f"LoRA diverged, b = {scale:g} N(0, I)": float(gone)})


def divergence_tables(config: Any, record: Record) -> dict[str, pd.DataFrame]:
    """The share of the seeds, one seed a draw of b and of the first row."""
    rows = []
    for scale in SCALES:
        gone = record.constant(f"LoRA diverged, b = {scale:g} N(0, I)")
        rows.append(
            {"b": f"{scale:g} N(0, I)", "seeds": len(gone), "LoRA diverges": float(gone.mean())}
        )
    return {f"LoRA at step 1/L, {PATIENCE} steps": pd.DataFrame(rows)}


def guarantees(config: Any) -> Iterable[Guarantee]:
    """G1 for RAC-LoRA in every run, and where AsymmLoRA must end."""
    yield descent(Constants(L=20.0, mu=2.0), of="RAC-LoRA")
    yield asymm_limit(counterexample_terms, of="AsymmLoRA")


def tables(config: Any, record: Record) -> dict[str, pd.DataFrame]:
    """Relative gaps at the end, one column a seed, and how often each arm diverged."""
    rows = []
    for arm in ARMS:
        for inverse, steps in STEPS[config.size].items():
            gaps = record.constant(f"{arm}, step 1/{inverse}")
            rows.append(
                {
                    "method": arm, "step": f"1/{inverse}", "steps": steps,
                    "diverged": f"{int(np.isinf(gaps).sum())} of {len(gaps)}",
                    "relative gap, median": float(np.median(gaps)),
                    "best": float(gaps.min()), "worst": float(gaps.max()),
                }
            )  # fmt: skip
    return {"relative gap at the end": pd.DataFrame(rows)}
