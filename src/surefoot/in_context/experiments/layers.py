"""One layer looped beside as many layers of their own: exact losses, and what tying costs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

from surefoot.in_context.population import optimal_schedule, optimal_step, population_loss
from surefoot.record import Record

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

SETTINGS = {
    "quick": ((10, 20), (10, 50)),
    "standard": ((10, 20), (10, 50), (10, 5), (20, 100)),
    "paper": ((10, 20), (10, 50), (10, 5), (20, 100), (10, 200)),
}
LOOPS = {"quick": (1, 2, 3, 5), "standard": (1, 2, 3, 5, 8), "paper": (1, 2, 3, 5, 8, 12)}


def run(config: Any, seed: int, record: Record) -> None:
    """Rational arithmetic: no prompt is drawn."""
    for d, n in SETTINGS[config.size]:
        for loops in LOOPS[config.size]:
            b = optimal_step(d, n, loops)
            record.update(
                seed, loops,
                {f"d = {d}, n = {n}: looped": float(population_loss(d, n, loops, b)),
                 f"d = {d}, n = {n}: layers": optimal_schedule(d, n, loops).loss,
                 f"d = {d}, n = {n}: step": b},
            )  # fmt: skip


def tables(config: Any, record: Record) -> dict[str, pd.DataFrame]:
    """The loss of the best tied step, of the best steps of their own, and the ratio."""
    rows = []
    for d, n in SETTINGS[config.size]:
        curves = {k: record.curves(f"d = {d}, n = {n}: {k}") for k in ("looped", "layers", "step")}
        for i, loops in enumerate(curves["looped"].steps):
            tied, own, b = (float(curves[k].values[0, i]) for k in ("looped", "layers", "step"))
            rows.append(
                {"d": d, "n": n, "loops": int(loops), "b*": b, "one layer looped": tied,
                 "as many layers": own, "what tying costs": tied / own}
            )  # fmt: skip
    return {"exact mean loss at the optimum, no sampling": pd.DataFrame(rows)}


def figures(config: Any, record: Record) -> dict[str, Figure]:
    """Both losses over the number of loops."""
    import plotly.graph_objects as go

    found = {}
    for d, n in SETTINGS[config.size]:
        figure = go.Figure()
        for kind, colour, dash in (("looped", "#1098ad", "solid"), ("layers", "#e8590c", "dash")):
            curves = record.curves(f"d = {d}, n = {n}: {kind}")
            figure.add_scatter(
                x=[int(t) for t in curves.steps], y=[float(v) for v in curves.values[0]],
                name="one layer looped" if kind == "looped" else "as many layers",
                mode="lines+markers", line={"color": colour, "dash": dash},
            )  # fmt: skip
        figure.update_layout(xaxis_title="loops", yaxis_title="mean loss", yaxis_type="log")
        found[f"loops and layers, d = {d}, n = {n}"] = figure
    return found
