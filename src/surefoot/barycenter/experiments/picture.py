"""The published outlier picture is an unconverged iterate; the optimality gap tells them apart."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from sklearn.exceptions import ConvergenceWarning

from surefoot.barycenter.barycenter import suot_barycenter
from surefoot.barycenter.experiments.figures import Line, lines
from surefoot.barycenter.guarantee import confinement, descent, optimality, rate, with_excess
from surefoot.guarantee import Guarantee
from surefoot.record import Record

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

# The second moment of the mixture as the authors' notebook prints it, and as it should be: their
# v @ v.t() of a vector is a scalar, added to every entry.
PRINTED = np.array([[2.4206, -0.0134], [-0.0134, 2.9056]])
RIGHT = np.array([[1.955, -0.479], [-0.479, 2.9056]])
OTHER = np.array([[2.5, 0.5], [0.5, 1.5]])
TAU, STEPS = 0.01, 100
CASES = {"printed": PRINTED, "right": RIGHT}
AS_PRINTED = {"B11": 1.4739, "B12": 0.0695, "B22": 1.3670}
"""The barycenter of the authors' notebook."""


def run(config: Any, seed: int, record: Record) -> None:
    """100 unit steps from the identity, as published, and the optimum by `bb`."""
    covs = np.stack([PRINTED, OTHER])
    with warnings.catch_warnings():
        # That it does not converge is what this part shows.
        warnings.simplefilter("ignore", ConvergenceWarning)
        early = suot_barycenter(
            covs, tau=TAU, method="eggd", init=(PRINTED + OTHER) / 2, max_iter=STEPS, tol=1e-12
        )
        published = {
            name: suot_barycenter(
                np.stack([A, OTHER]),
                tau=TAU,
                method="eggd",
                init="identity",
                max_iter=STEPS,
                tol=1e-12,
            )
            for name, A in CASES.items()
        }
    optima = {
        name: suot_barycenter(np.stack([A, OTHER]), tau=TAU, init="identity", tol=1e-10)
        for name, A in CASES.items()
    }
    best = optima["printed"].value
    early.write(record, seed)
    with_excess(record, best)
    for kind, r in {"unit steps": published["printed"], "bb": optima["printed"]}.items():
        own = with_excess(r.record(0), best)
        columns = {"F - F*": own["excess"], "optimality gap": own["optimality_gap"]}
        if kind == "unit steps":
            columns["G4 bound"] = np.asarray(rate("measured").bound(own))
        for name, values in columns.items():
            record.extend(seed, f"from I, {kind}: {name}", values[0], own.curves("F").steps)
    for name, true in optima.items():
        rows = {"100 unit steps": published[name], "optimum": true}
        for kind, r in rows.items():
            key = f"{name} input, {kind}"
            record.update(
                seed, 0,
                {f"{key}: B11": r.cov[0, 0], f"{key}: B12": r.cov[0, 1], f"{key}: B22": r.cov[1, 1],
                 f"{key}: steps": r.n_iter, f"{key}: F - F*": r.value - true.value,
                 f"{key}: optimality gap": r.optimality_gap},
            )  # fmt: skip


def guarantees(config: Any) -> list[Guarantee]:
    """G1, G3, G4 and G5 of unit steps at the same problem, started among the inputs."""
    return [descent(), *confinement(), rate(), optimality()]


def tables(config: Any, record: Record) -> dict[str, pd.DataFrame]:
    """What was printed, what is optimal, and the optimality gap proved of each."""
    rows: list[dict[str, Any]] = [
        {"first input": "printed", "result": "printed by the authors", **AS_PRINTED}
    ]
    for name in CASES:
        for kind in ("100 unit steps", "optimum"):
            key = f"{name} input, {kind}"
            columns = ("B11", "B12", "B22", "steps", "F - F*", "optimality gap")
            values = {c: float(record.constant(f"{key}: {c}")[0]) for c in columns}
            rows.append({"first input": name, "result": kind, **values})
    return {
        f"the published picture, tau = {TAU:g}, from the identity; the first input as the authors print it, "
        "and as it should be": pd.DataFrame(rows)
    }


def figures(config: Any, record: Record) -> dict[str, Figure]:
    """F - F*, the bound proved of it and its promised rate, for the published run and for ours."""
    found = {}
    for i, kind in enumerate(("unit steps", "bb")):
        for name in ("F - F*", "optimality gap"):
            curves = record.curves(f"from I, {kind}: {name}")
            promised = name == "optimality gap"
            found[f"{kind}: {name}"] = Line(
                curves.steps.tolist(), curves.values[0].tolist(), i, promised, kind == "bb"
            )
    bound = record.curves("from I, unit steps: G4 bound")
    found["unit steps: promised rate (G4)"] = Line(
        bound.steps.tolist(), bound.values[0].tolist(), 2, True
    )
    title = "from the identity: how far F is above its minimum, and what is known of it"
    return {title: lines(found, "step", "F - F*")}
