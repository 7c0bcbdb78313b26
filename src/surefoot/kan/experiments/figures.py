"""The study's own pictures; those of the certificates are drawn by the report."""

from __future__ import annotations

from typing import TYPE_CHECKING

from surefoot.record import Record

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

# Legible on white and on near-black, and told apart without colour by their dashes.
LINES = {
    "loss": ("measured", "#1098ad", "solid"),
    "forecast": ("forecast from the start", "#e8590c", "dash"),
    "reanchored": ("forecast from the last checkpoint", "#845ef7", "dot"),
}


def loss_figure(record: Record) -> Figure:
    """The loss of the first seed and what was forecast of it, on a logarithmic axis."""
    import plotly.graph_objects as go

    figure = go.Figure()
    for quantity, (name, colour, dash) in LINES.items():
        curves = record.curves(quantity)
        kept = [(t, v) for t, v in zip(curves.steps, curves.values[0], strict=True) if v > 0]
        figure.add_scatter(
            x=[int(t) for t, _ in kept], y=[float(v) for _, v in kept], name=name, mode="lines",
            line={"color": colour, "dash": dash},
        )  # fmt: skip
    figure.update_layout(xaxis_title="step", yaxis_title="loss", yaxis_type="log")
    return figure
