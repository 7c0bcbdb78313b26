"""The study's own pictures; those of the certificates are drawn by the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

# Legible on white and on near-black, and told apart without colour by their shapes and dashes.
KINDS = (("federated rounds", "#e8590c", "x"), ("one upload of prototypes", "#1098ad", "circle"),
         ("one upload of mixtures", "#845ef7", "diamond"), ("all records", "#2f9e44", "square"))  # fmt: skip
COLOURS = ("#1098ad", "#e8590c", "#845ef7", "#2f9e44", "#d6336c", "#868e96")
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
UPLOADS = ("mean", "additive", "cluster", "random")


def kind_of(arm: str) -> str:
    """What travels for it."""
    if arm == "centralised":
        return KINDS[3][0]
    if arm.startswith("FedPFT"):
        return KINDS[2][0]
    return KINDS[1][0] if arm.startswith(UPLOADS) else KINDS[0][0]


def bytes_figure(points: Sequence[tuple[str, float, float]]) -> Figure:
    """(arm, megabytes, percent): accuracy against all that was uploaded, on a logarithmic axis."""
    import plotly.graph_objects as go

    figure = go.Figure()
    for kind, colour, symbol in KINDS:
        own = [p for p in points if p[1] > 0 and kind_of(p[0]) == kind]
        figure.add_scatter(
            x=[mb for _, mb, _ in own], y=[v for _, _, v in own], text=[arm for arm, _, _ in own],
            name=kind, mode="markers", marker={"color": colour, "symbol": symbol, "size": 9},
            hovertemplate="%{text}<br>%{x:.3f} MB, %{y:.1f} %<extra></extra>",
        )  # fmt: skip
    for arm, mb, value in points:
        if mb == 0:
            figure.add_hline(y=value, line={"color": "#868e96", "dash": "dot"}, annotation_text=arm)
    figure.update_layout(
        xaxis_title="megabytes of all uploads", yaxis_title="accuracy in percent", xaxis_type="log",
        legend={"orientation": "h", "y": -0.25},
    )  # fmt: skip
    return figure


def lines_figure(
    x: Sequence[float],
    curves: Mapping[str, Sequence[float]],
    x_title: str,
    y_title: str,
    log: bool = True,
) -> Figure:
    """Several curves over one axis, logarithmic unless it says otherwise."""
    import plotly.graph_objects as go

    figure = go.Figure()
    for i, (name, y) in enumerate(curves.items()):
        style = {"color": COLOURS[i % len(COLOURS)], "dash": DASHES[i % len(DASHES)]}
        figure.add_scatter(x=list(x), y=list(y), name=name, mode="lines+markers", line=style)
    figure.update_layout(
        xaxis_title=x_title, yaxis_title=y_title, xaxis_type="log" if log else "linear",
        legend={"orientation": "h", "y": -0.25},
    )  # fmt: skip
    return figure
