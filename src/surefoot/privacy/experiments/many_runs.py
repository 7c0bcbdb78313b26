"""One canary, many trainings with and without it; five kinds of canary on real digits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd
import torch

from surefoot.guarantee import Guarantee
from surefoot.privacy import audit
from surefoot.privacy.experiments.softmax_runs import CANARIES, Batched, make_canary
from surefoot.privacy.experiments.training import digits
from surefoot.privacy.facts import copy_facts
from surefoot.privacy.figures import tradeoff_figure
from surefoot.privacy.guarantee import heuristic_claim, proven_claim
from surefoot.record import Record

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

CLAIM = (0.8, 0.1, 50)
DELTA, CONFIDENCE = 1e-5, 0.95
RUNS = {"quick": 1000, "standard": 6000, "paper": 20000}
CHOSEN = {"quick": ("dirac", "mislabeled"), "standard": CANARIES, "paper": CANARIES}
# The family bounds assume the shape of the privacy loss; only the first assumes nothing.
METHODS = {"clopper": "distribution-free", "gdp": "assuming Gaussian shape"}


def column(canary: str, method: str) -> str:
    """The record's name for one bound."""
    return f"{canary} canary, {METHODS[method]}"


def run(config: Any, seed: int, record: Record) -> None:
    """Half of the runs with the canary, half without; half of each choose the threshold."""
    x, y, _, _ = digits(100)
    x = torch.cat([x, torch.ones(len(x), 1)], dim=1)
    training = Batched(x, y, *CLAIM)
    runs = RUNS[config.size]
    included = torch.arange(runs) % 2 == 0
    for i, name in enumerate(CHOSEN[config.size]):
        scores = training.train(make_canary(name, x, y), included, 1000 * seed + i)
        inside, outside = scores[included.numpy()], scores[~included.numpy()]
        record.append(
            seed, 0, **{f"{name} separation": (inside.mean() - outside.mean()) / outside.std()}
        )
        result = audit.from_scores(
            scores, included.numpy(), method=("clopper", "gdp"), delta=DELTA, confidence=CONFIDENCE
        )
        copy_facts(result.record, record, seed, name)
        record.note(seed, name, **training.facts())
        assert result.limits is not None
        limits = {f"{name} fpr": result.limits.fpr, f"{name} fnr": result.limits.fnr}
        record.update(seed, 0, limits)
        for method in METHODS:
            record.append(seed, 0, **{column(name, method): result.bounds[method]})


def guarantees(config: Any) -> list[Guarantee]:
    """Every bound of every canary against both claims."""
    found = []
    for name in CHOSEN[config.size]:
        for method in METHODS:
            quantity = column(name, method)
            found.append(heuristic_claim(quantity, of=name))
            if method == "clopper":
                found.append(proven_claim(quantity, of=name))
    return found


def figures(config: Any, record: Record) -> dict[str, Figure]:
    """The trade-off curves, and where the audit of a Dirac canary puts the training."""
    if config.size == "quick":
        return {}
    point = float(record.constant("dirac fpr")[0]), float(record.constant("dirac fnr")[0])
    return {"trade-off, with the upper limits of both error rates": tradeoff_figure(*CLAIM, point)}


def tables(config: Any, record: Record) -> dict[str, pd.DataFrame]:
    """Mean bounds over seeds; the paper's order is gradient space, then blank, then mislabeled."""
    rows = []
    for name in CHOSEN[config.size]:
        row: dict[str, Any] = {
            "canary": name,
            "separation / noise": float(record.constant(f"{name} separation").mean()),
        }
        for method, words in METHODS.items():
            values = record.constant(column(name, method))
            row[words] = float(values.mean())
            row[f"{words}, sd"] = float(values.std(ddof=1)) if len(values) > 1 else float("nan")
        rows.append(row)
    return {f"lower bounds on epsilon at delta {DELTA:g}": pd.DataFrame(rows)}
