"""A checkpoint of a run, and checkpoints as a table."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Checkpoint:
    """One row of the report.

    Attributes
    ----------
    step, loss
        Where, and L there.
    promised
        T1's (1 - eta lambda0 / 2)^t L_0, whether its conditions hold or not; NaN without eta.
    forecast, reanchored
        T2 from the start, and from the checkpoint before.
    lambda_min, drift
        Of K here; |K_t - K_0| / |K_0|.
    moved
        |theta_t - theta_0|.
    dead
        The larger share of inputs or hidden values outside the grid; NaN where there is no grid.
    violations
        Steps so far with L_{t+1} > (1 - eta lambda0 / 2) L_t beyond rounding.
    """

    step: int
    loss: float
    promised: float
    forecast: float
    reanchored: float
    lambda_min: float
    drift: float
    moved: float
    dead: float
    violations: int


def table(rows: list[Checkpoint]) -> str:
    """A line each under their names, aligned."""
    names = list(asdict(rows[0])) if rows else []
    cells = [[_cell(v) for v in asdict(row).values()] for row in rows]
    widths = [max(map(len, column)) for column in zip(names, *cells, strict=True)]
    return "\n".join(
        "  ".join(text.rjust(w) for text, w in zip(line, widths, strict=True))
        for line in (names, *cells)
    )


def _cell(value: float) -> str:
    if isinstance(value, int):
        return str(value)
    return "-" if math.isnan(value) else f"{value:.3g}"
