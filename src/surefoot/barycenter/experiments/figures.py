"""The study's own pictures; those of the certificates are drawn by the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

# Legible on white and on near-black, and told apart without colour by dash and marker.
COLOURS = ("#1098ad", "#e8590c", "#845ef7", "#2f9e44")


@dataclass(frozen=True)
class Line:
    """One curve; `promised` curves are dashed, others of the same colour measured."""

    x: Sequence[float]
    y: Sequence[float]
    colour: int = 0
    promised: bool = False
    markers: bool = False


def lines(
    curves: Mapping[str, Line], x: str, y: str, *, log_x: bool = False, log_y: bool = True
) -> Figure:
    """Curves by name over titled axes; what is not positive has no place on a log axis."""
    import plotly.graph_objects as go

    figure = go.Figure()
    for name, line in curves.items():
        kept = [p for p in zip(line.x, line.y, strict=True) if p[1] > 0 or not log_y]
        figure.add_scatter(
            x=[p[0] for p in kept], y=[p[1] for p in kept], name=name,
            mode="lines+markers" if line.markers else "lines",
            line={"color": COLOURS[line.colour], "width": 2.5,
                  "dash": "dash" if line.promised else "solid"},
        )  # fmt: skip
    axis = {"zeroline": False, "exponentformat": "power"}
    figure.update_layout(
        template="none", height=420, margin={"l": 80, "r": 20, "t": 70, "b": 55},
        legend={"orientation": "h", "y": 1.2, "x": 0},
        xaxis={**axis, "title": {"text": x}, "type": "log" if log_x else "linear"},
        yaxis={**axis, "title": {"text": y}, "type": "log" if log_y else "linear", "nticks": 8},
        paper_bgcolor="rgba(0,0,0,0)", plot_bgcolor="rgba(0,0,0,0)",
    )  # fmt: skip
    return figure
