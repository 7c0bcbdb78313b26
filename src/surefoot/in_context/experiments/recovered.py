"""Is it gradient descent? A hidden model is recovered, and what is none is told from it."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from surefoot._problems.arms import last
from surefoot.in_context.baselines import SoftmaxTransformer, ols, optimal_model, ridge
from surefoot.in_context.looped import LoopedTransformer
from surefoot.in_context.probing import probe
from surefoot.record import Record

Predictor = Callable[[Tensor, Tensor, Tensor], Tensor]
D, N = 5, 20
HIDDEN = 3
TRUTH = {
    "three loops, hidden A": "gd",
    "three different steps": "untied",
    "ridge, alpha = 1": "ridge",
    "least squares": "ols",
    "nothing": "zero",
    "softmax attention": "not linear in the query",
    "clipped labels": "not linear in y",
}
LOOPS = {"quick": 5, "standard": 8, "paper": 8}


def hidden(seed: int) -> LoopedTransformer:
    """Three loops with a preconditioner near the identity that is not symmetric."""
    model = LoopedTransformer(D, HIDDEN, dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(D, D, generator=generator, dtype=torch.float64)
    with torch.no_grad():
        model.A.copy_(0.6 * torch.eye(D, dtype=torch.float64) + 0.05 * noise)
    return model


def callables(seed: int) -> dict[str, Predictor]:
    """What is asked, in the order of `TRUTH`."""
    model = hidden(seed)
    return dict(
        zip(
            TRUTH,
            (
                model,
                optimal_model(D, N, HIDDEN, tied=False),
                lambda X, y, xq: ridge(X, y, xq, 1.0),
                ols,
                lambda X, y, xq: torch.zeros_like(xq[:, 0]),
                SoftmaxTransformer(D, 1, seed=seed, dtype=torch.float64),
                lambda X, y, xq: ols(X, y.clamp(-1, 1), xq),
            ),
            strict=True,
        )
    )


def run(config: Any, seed: int, record: Record) -> None:
    """One probe a callable; the errors of every number of steps are kept."""
    for name, fn in callables(seed).items():
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found = probe(fn, d=D, n=N, max_loops=LOOPS[config.size], seed=seed)
        for loops, error in found.errors.items():
            record.append(seed, loops, **{f"{name}: error": error})
        off = float("nan")
        if found.A is not None:
            off = float((found.A - hidden(seed).A.detach()).norm() / hidden(seed).A.detach().norm())
        record.update(
            seed, 0,
            {f"{name}: right": float(found.verdict == TRUTH[name]), f"{name}: loops": float(found.loops or 0),
             f"{name}: not linear in the query": found.lin_q, f"{name}: not linear in y": found.lin_y,
             f"{name}: best other": min(found.competitors.values()), f"{name}: A off by": off},
        )  # fmt: skip
        record.note(seed, name, verdict=found.verdict)


def tables(config: Any, record: Record) -> dict[str, pd.DataFrame]:
    """What each is, what the probe said, and how far the nearest gradient descent is."""
    rows = []
    for name, truth in TRUTH.items():
        errors = record.curves(f"{name}: error")
        best = errors.values.mean(0)
        said = record.fact("verdict", name).all
        rows.append(
            {"callable": name, "truth": truth, "said": ", ".join(sorted({str(v) for v in said})),
             "right in": f"{int(record[f'{name}: right'].sum())} of {len(errors.seeds)}",
             "nearest gradient descent, error": float(best.min()),
             "at steps": int(errors.steps[int(best.argmin())]),
             "best other, error": last(record, f"{name}: best other"),
             "A off by": last(record, f"{name}: A off by"),
             "query": last(record, f"{name}: not linear in the query"),
             "y": last(record, f"{name}: not linear in y")}
        )  # fmt: skip
    return {f"d = {D}, n = {N}, fitted on 256 prompts, judged on 256": pd.DataFrame(rows)}
