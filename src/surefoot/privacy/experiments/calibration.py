"""The noise for a target epsilon, by guarantee and by heuristic, and what each then proves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from surefoot.guarantee import Guarantee
from surefoot.privacy.calibration import calibrate
from surefoot.privacy.figures import noise_figure
from surefoot.record import Record

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

# delta, q, T, target epsilon
ROWS = ((1e-5, 0.08, 2000, 8.0), (1e-6, 0.005, 10000, 1.0), (1e-5, 0.01, 2000, 3.0))
COUNT = {"quick": 2, "standard": 3, "paper": 3}


def run(config: Any, seed: int, record: Record) -> None:
    """Both calibrations of every row."""
    for i, (delta, q, steps, target) in enumerate(ROWS[: COUNT[config.size]]):
        proven = calibrate(target, delta, q, steps, by="standard")
        plausible = calibrate(target, delta, q, steps, by="heuristic")
        record.update(
            seed,
            i,
            {
                "target epsilon": target,
                "sigma by standard": proven.sigma,
                "proven epsilon by standard": proven.proven_epsilon.value,
                "sigma by heuristic": plausible.sigma,
                "proven epsilon by heuristic": plausible.proven_epsilon.value,
            },
        )


def guarantees(config: Any) -> list[Guarantee]:
    """The noise calibrated to the guarantee keeps its target."""
    return [
        Guarantee(
            name="noise calibrated by the standard value proves its target",
            statement="epsilon_standard(sigma) <= target, a setting a step",
            latex=r"\varepsilon_{\mathrm{std}}(\sigma) \le \text{target}",
            source="discretised privacy loss, pessimistic grid",
            quantity="proven epsilon by standard",
            axis="proven epsilon",
            sense="upper",
            holds_in="every run",
            bound=lambda record: record.curves("target epsilon").values,
        )
    ]


def figures(config: Any, record: Record) -> dict[str, Figure]:
    """What more noise buys."""
    if config.size == "quick":
        return {}
    delta, q, steps, _ = ROWS[2]
    return {"epsilon over noise": noise_figure(q, steps, delta, np.geomspace(0.5, 4, 13))}


def tables(config: Any, record: Record) -> dict[str, pd.DataFrame]:
    """The proven epsilon first, whatever the noise was chosen for."""
    rows = []
    for i, (delta, q, steps, target) in enumerate(ROWS[: COUNT[config.size]]):
        column = {k: float(np.asarray(record.curves(k).values)[0, i]) for k in record.quantities}
        rows.append(
            {
                "delta": delta, "q": q, "T": steps, "target": target,
                "proven epsilon at the heuristic's sigma": column["proven epsilon by heuristic"],
                "sigma by heuristic": column["sigma by heuristic"],
                "sigma by standard": column["sigma by standard"],
            }
        )  # fmt: skip
    return {"calibration": pd.DataFrame(rows)}
