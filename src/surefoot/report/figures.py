"""Promised and measured curves as plotly figures, and how figures are written."""

from __future__ import annotations

from pathlib import Path

import plotly.graph_objects as go

from surefoot._run.environment import version_of
from surefoot.errors import SurefootError
from surefoot.report.chart import Drawn, chart

# Both legible on white and on near-black.
MEASURED, PROMISED = "#1098ad", "#e8590c"
IMAGES = (".svg", ".pdf", ".png")


def check_figure_path(path: Path) -> None:
    """Refuse a file that `write_figure` could not write, before the work that ends in it.

    Raises
    ------
    SurefootError
        If the ending is none that can be written, needs kaleido, which is not installed, or the folder is not
        there.
    """
    if path.suffix not in (".html", *IMAGES):
        raise SurefootError(
            f"a figure must end in .html, or with kaleido in {', '.join(IMAGES)}, got {path}"
        )
    if path.suffix != ".html" and version_of("kaleido") is None:
        raise SurefootError(
            f"writing {path.suffix} needs kaleido, which is not installed; "
            "run: pip install kaleido, or write .html"
        )
    if not path.parent.is_dir():
        raise SurefootError(f"there is no folder {path.parent} to write {path} in")


def write_figure(figure: go.Figure, path: Path) -> None:
    """Write an .html that needs nothing else, or what kaleido can write: .svg, .pdf, .png.

    Raises
    ------
    SurefootError
        As `check_figure_path`.
    """
    check_figure_path(path)
    if path.suffix == ".html":
        figure.write_html(path, include_plotlyjs=True)
    else:
        figure.write_image(path)


def certificate_figure(certificate: Drawn) -> go.Figure:
    """Measured mean with the band of the seeds, and the promised curve, on the scales of the report."""
    found = chart(certificate)
    curve, several = found.curve, found.seeds > 1
    figure = go.Figure()
    if several and found.dots:
        figure.add_scatter(
            x=curve.steps, y=curve.mean, mode="markers", marker={"color": MEASURED, "size": 8},
            error_y={
                "type": "data", "symmetric": False, "color": MEASURED,
                "array": [a - b for a, b in zip(curve.highest, curve.mean, strict=True)],
                "arrayminus": [a - b for a, b in zip(curve.mean, curve.lowest, strict=True)],
            },
            name="measured",
        )  # fmt: skip
    elif several:
        figure.add_scatter(
            x=[*curve.steps, *reversed(curve.steps)],
            y=[*curve.highest, *reversed(curve.lowest)],
            fill="toself", mode="lines", line={"width": 0}, fillcolor="rgba(16,152,173,.2)",
            name=f"{found.seeds} seeds", hoverinfo="skip",
        )  # fmt: skip
    if not (several and found.dots):
        figure.add_scatter(
            x=curve.steps, y=curve.mean, mode="markers" if found.dots else "lines", name="measured",
            line={"color": MEASURED, "width": 2.5}, marker={"color": MEASURED, "size": 8},
        )  # fmt: skip
    figure.add_scatter(
        x=curve.steps, y=curve.promised, mode="markers" if found.dots else "lines", name="promised",
        line={"color": PROMISED, "width": 2.5, "dash": "dash"},
        marker={"color": PROMISED, "symbol": "line-ew-open", "size": 14, "line": {"width": 2.5}},
    )  # fmt: skip
    ticks = [v for v, _ in found.y.ticks], [label for _, label in found.y.ticks]
    figure.update_layout(
        template="none",
        xaxis={
            "title": {"text": found.x.title},
            "type": "log" if found.x.log else "linear",
            "zeroline": False,
        },
        yaxis={
            "title": {"text": found.y.title, "standoff": 14},
            "type": "log" if found.y.log else "linear",
            "tickvals": ticks[0],
            "ticktext": ticks[1],
            "zeroline": False,
        },
        legend={"orientation": "h", "y": 1.12, "x": 0},
        margin={"l": 70, "r": 20, "t": 40, "b": 50},
        height=360,
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
    )
    return figure
