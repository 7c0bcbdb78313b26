"""The authors' convergence setting, where the loss that they plot is saturated."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float64
from sklearn.exceptions import ConvergenceWarning

from surefoot.barycenter.barycenter import suot_barycenter
from surefoot.barycenter.guarantee import descent, optimality, with_excess
from surefoot.barycenter.result import BarycenterResult
from surefoot.guarantee import Guarantee
from surefoot.record import Record

SEED, N, D, DRAWS, TAU = 4444, 50, 50, 1000, 0.01
POINTS = (0, 50, 100, 230, 500)
SATURATED = "the plotted free loss never rises (false)"


def inputs() -> Float64[np.ndarray, "n d d"]:
    """Diagonal covariances, eigenvalues uniform in [.1, 1], from the seed of the authors' code.

    That code draws samples after each input, which moves its generator on; so does this.
    """
    generator = torch.Generator().manual_seed(SEED)
    rows = []
    for _ in range(N):
        rows.append(torch.rand(D, generator=generator) * 0.9 + 0.1)
        torch.normal(torch.zeros(DRAWS, D), torch.ones(DRAWS, D), generator=generator)
    return np.stack([np.diag(row.double().numpy()) for row in rows])


def _free_loss(r: BarycenterResult) -> float:
    return float(np.mean(-TAU * np.expm1(-np.asarray(r.outlier_score) / TAU)))


def run(config: Any, seed: int, record: Record) -> None:
    """Unit steps from the identity, looked at on the way; and both methods to 1e-8."""
    covs = inputs()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        B, at, before = np.eye(D), 0, np.inf
        for k in POINTS:
            r = suot_barycenter(
                covs, tau=TAU, method="eggd", init=B, max_iter=k - at, tol=1e-12, record=False
            )
            loss, B, at = _free_loss(r), r.cov, k
            record.append(
                seed, k, mean_upsilon=2 * r.value, free_loss=loss, free_loss_before=min(before, TAU),
                residual=r.grad_norm, gap=r.optimality_gap,
            )  # fmt: skip
            before = loss
        limit = {
            method: suot_barycenter(covs, tau=TAU, method=method, init="identity")
            for method in ("eggd", "bb")
        }
    limit["eggd"].write(record, seed)
    with_excess(record)
    for method, r in limit.items():
        record.update(
            seed, 0,
            {f"{method}: steps": r.n_iter, f"{method}: mean Upsilon": 2 * r.value,
             f"{method}: free loss": _free_loss(r), f"{method}: residual": r.grad_norm,
             f"{method}: optimality gap": r.optimality_gap},
        )  # fmt: skip


def guarantees(config: Any) -> list[Guarantee]:
    """G1 and G5 of the unit steps; and what their plots suggest, which the run refutes."""
    plotted = Guarantee(
        name=SATURATED, statement="tau mean(1 - exp(-Upsilon/tau)) falls from point to point",
        source="read off the figures of arXiv 2410.08117", quantity="free_loss", sense="upper",
        holds_in="every run", heuristic=True, tolerance=0.0,
        bound=lambda record: record["free_loss_before"],
    )  # fmt: skip
    return [descent(), optimality(), plotted]


def tables(config: Any, record: Record) -> dict[str, pd.DataFrame]:
    """Mean Upsilon beside the plotted loss, and where each method ends."""
    names = {
        "mean_upsilon": "mean Upsilon", "free_loss": "free loss, as plotted", "residual": "residual",
        "gap": "optimality gap",
    }  # fmt: skip
    curves = {words: record.curves(name).values[0] for name, words in names.items()}
    way = pd.DataFrame({"unit steps": record.curves("free_loss").steps, **curves})
    way.insert(3, "its change", way["free loss, as plotted"].diff())
    columns = ("steps", "mean Upsilon", "free loss", "residual", "optimality gap")
    ends = [
        {"method": m} | {c: float(record.constant(f"{m}: {c}")[0]) for c in columns}
        for m in ("eggd", "bb")
    ]
    return {"unit steps from the identity": way, "at a residual of 1e-8": pd.DataFrame(ends)}
