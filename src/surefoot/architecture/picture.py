"""The front as a picture and as a table."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from surefoot.architecture.pareto import ParetoPoint
from surefoot.report.figures import MEASURED, PROMISED


def front_figure(points: Sequence[ParetoPoint], chosen: ParetoPoint) -> go.Figure:
    """Validation loss over entries that are not zero, the chosen point marked.

    Parameters
    ----------
    points
        The front.
    chosen
        One of them, or one pruned further.
    """
    figure = go.Figure()
    figure.add_scatter(
        x=[p.n_nonzero for p in points], y=[p.val_loss for p in points], mode="lines+markers",
        name="front", line_color=MEASURED, line_shape="hv", text=[said(p) for p in points],
        hovertemplate="%{text}<extra></extra>",
    )  # fmt: skip
    figure.add_scatter(
        x=[chosen.n_nonzero], y=[chosen.val_loss], mode="markers", name="chosen",
        marker={"color": PROMISED, "size": 12}, text=[said(chosen)],
        hovertemplate="%{text}<extra></extra>",
    )  # fmt: skip
    figure.update_layout(
        title="Size and validation loss", xaxis_title="parameters that are not zero",
        yaxis_title="validation loss", xaxis_type="log",
    )  # fmt: skip
    if min(p.val_loss for p in points) > 0:
        figure.update_yaxes(type="log")
    return figure


def said(point: ParetoPoint) -> str:
    """A point in one line."""
    shape = "-".join(map(str, point.widths)) or "linear"
    return f"{point.n_nonzero} of {point.n_params} parameters, {shape}, loss {point.val_loss:.4g}"


def front_rows(points: Sequence[ParetoPoint]) -> list[tuple[str, ...]]:
    """The front as rows of text, a header first.

    Parameters
    ----------
    points
        Smallest first.
    """
    rows: list[tuple[str, ...]] = [
        ("n_params", "n_nonzero", "hidden layers", "source", "validation loss", "certified")
    ]
    for p in points:
        shape = ", ".join(map(str, p.widths)) or "none"
        limit = "" if p.cert_bound is None else f"{p.cert_bound:.4g}"
        rows.append(
            (str(p.n_params), str(p.n_nonzero), shape, p.source, f"{p.val_loss:.4g}", limit)
        )
    return rows
