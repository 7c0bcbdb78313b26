"""Trained on Gaussian prompts, asked about real rows: beside least squares, ridge, and predicting nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from surefoot import data
from surefoot._problems.arms import last
from surefoot._problems.tuning import EqualTuning
from surefoot.in_context.baselines import ols, ridge
from surefoot.in_context.conditions import prompt_assumptions
from surefoot.in_context.contraction import prompt_contraction
from surefoot.in_context.looped import LoopedTransformer
from surefoot.in_context.population import optimal_step, population_loss
from surefoot.in_context.prompts import GaussianPrompts, Prompt
from surefoot.in_context.table_prompts import TablePrompts
from surefoot.in_context.training import train_looped
from surefoot.record import Record

D, N = 10, 40
LOOPS = (1, 2, 5)
TABLES = ("digits", "diabetes")
PENALTIES = tuple(10.0**e for e in range(-3, 3))
SIZES = {"quick": (500, 100), "standard": (2000, 600), "paper": (10_000, 600)}
"""Prompts, steps of training."""
SCORED = 2000
HOLDS = {True: "holds", False: "fails", None: "cannot be told"}


def prompts_of(name: str, seed: int) -> TablePrompts:
    """40 rows and a query; digits as 10 components with a linear read-out, diabetes with its own target."""
    table = data.load(name)
    return TablePrompts(
        table.x, table.y if name == "diabetes" else None, N, components=D, seed=seed
    )


def trained(loops: int, steps: int, seed: int) -> LoopedTransformer:
    """A model that saw Gaussian prompts alone."""
    model = LoopedTransformer(D, loops, dtype=torch.float64)
    train_looped(model, GaussianPrompts(D, N, seed=seed), steps=steps, every=steps, samples=SCORED)
    return model


def run(config: Any, seed: int, record: Record) -> None:
    """Squared errors of every arm on the same prompts; ridge's penalty is chosen on other ones."""
    count, steps = SIZES[config.size]
    models = {k: trained(k, steps, seed) for k in LOOPS}
    for name in TABLES:
        source = prompts_of(name, seed)
        # The first draw is for choices, the second one for what is reported.
        choosing, asked = source.sample(count), source.sample(count)
        chosen = EqualTuning("lower").choose(f"{name}, ridge", PENALTIES, _scored_on(choosing))
        chosen.note(record, f"{name}, ridge", seed)
        arms: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
            **{f"{k} loops" if k > 1 else "1 loop": models[k] for k in LOOPS},
            "least squares": ols,
            "ridge": _ridge(chosen.value),
            "zero": lambda X, y, xq: torch.zeros_like(xq[:, 0]),
        }
        for arm, predict in arms.items():
            errors = _errors(predict, asked)
            record.update(
                seed, 0,
                {f"{name}: {arm}: mean": float(errors.mean()),
                 f"{name}: {arm}: median": float(errors.median())},
            )  # fmt: skip
        for k in LOOPS:
            share = _contracting(models[k].A.detach(), asked.X)
            record.append(seed, 0, **{f"{name}: {k}: contracts": share})
        record.append(seed, 0, **{f"{name}: penalty": chosen.value})
        for held in prompt_assumptions(asked.X, asked.y, None if name == "diabetes" else asked.w):
            if held.measured is not None:
                record.append(seed, 0, **{f"{name}: {held.name}": held.measured})
            record.note(
                seed, f"{name}: {held.name}", requires=held.requires, holds=HOLDS[held.holds]
            )


def _ridge(alpha: float) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    return lambda X, y, xq: ridge(X, y, xq, alpha)


def _scored_on(prompts: Prompt) -> Callable[[float], tuple[float, None]]:
    return lambda alpha: (float(_errors(_ridge(alpha), prompts).mean()), None)


def _contracting(A: Tensor, X: Tensor) -> float:
    """The share of prompts on which looping on would converge; NaN where A is not definite."""
    symmetric = (A + A.mT) / 2
    if float(torch.linalg.eigvalsh(symmetric)[0]) <= 0:
        return float("nan")
    return float((prompt_contraction(X, symmetric) < 1).double().mean())


def _errors(predict: Callable[[Tensor, Tensor, Tensor], Tensor], on: Prompt) -> Tensor:
    with torch.no_grad():
        return (predict(on.X, on.y, on.xq) - on.target).square()


def tables(config: Any, record: Record) -> dict[str, pd.DataFrame]:
    """Mean and median of every arm, what the theory of Gaussian prompts says, who is best."""
    found = {}
    names = [f"{k} loops" if k > 1 else "1 loop" for k in LOOPS]
    for name in TABLES:
        arms = [*names, "least squares", "ridge", "zero"]
        means = {arm: last(record, f"{name}: {arm}: mean") for arm in arms}
        best = min(means, key=means.__getitem__)
        rows = []
        for arm in arms:
            k = LOOPS[names.index(arm)] if arm in names else None
            rows.append(
                {"predictor": f"{arm}, penalty from other prompts" if arm == "ridge" else arm,
                 "mean squared error": means[arm],
                 "median": last(record, f"{name}: {arm}: median"),
                 "exact mean, Gaussian prompts": float("nan") if k is None
                 else float(population_loss(D, N, k, optimal_step(D, N, k))),
                 "prompts that contract": float("nan") if k is None
                 else last(record, f"{name}: {k}: contracts"),
                 "best": "best" if arm == best else ""}
            )  # fmt: skip
        kind = "its own noisy target" if name == "diabetes" else "linear read-outs, no noise"
        title = f"{name}: {N} rows a prompt, {D} whitened features, {kind}"
        found[title] = pd.DataFrame(rows)
    return found | {"what the theorems ask of prompts": _conditions(record)}


def _conditions(record: Record) -> pd.DataFrame:
    """Each condition as measured, on either table."""
    rows = []
    for name in TABLES:
        start = f"{name}: "
        kept = [
            k.removesuffix(".requires")
            for k in record.facts
            if k.startswith(start) and k.endswith(".requires")
        ]
        for key in kept:
            verdicts = [str(v) for v in record.fact("holds", key).all]
            rows.append(
                {"table": name, "condition": key.removeprefix(start),
                 "requires": ", ".join(map(str, record.fact("requires", key).all)),
                 "measured": last(record, key) if key in record.quantities else float("nan"),
                 "verdict": ", ".join(sorted(set(verdicts)))}
            )  # fmt: skip
    return pd.DataFrame(rows)
