"""Promised and measured curves as plotly figures, and the sparkline of the index."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import plotly.graph_objects as go

from surefoot._run.environment import version_of
from surefoot._verdict.curve import PlotCurve
from surefoot.errors import SurefootError

# Both legible on white and on near-black.
MEASURED, PROMISED = "#1098ad", "#e8590c"
IMAGES = (".svg", ".pdf", ".png")


class Drawn(Protocol):
    """Of a certificate, what a drawing needs; the certificate draws itself with this module."""

    @property
    def quantity(self) -> str:
        """What the curves show."""

    @property
    def seeds(self) -> list[int]:
        """Of how many runs."""

    @property
    def curve(self) -> PlotCurve:
        """Measured and promised."""


def _log_worthy(values: Sequence[float]) -> bool:
    """Positive and spanning more than a factor of thirty."""
    finite = [v for v in values if math.isfinite(v)]
    return bool(finite) and min(finite) > 0 and max(finite) / min(finite) > 30


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
    """Measured mean with the band of the seeds, and the promised curve; log axes where they belong."""
    curve = certificate.curve
    figure = go.Figure()
    if len(certificate.seeds) > 1:
        figure.add_scatter(
            x=[*curve.steps, *reversed(curve.steps)],
            y=[*curve.highest, *reversed(curve.lowest)],
            fill="toself", mode="lines", line={"width": 0}, fillcolor="rgba(16,152,173,.2)",
            name=f"{len(certificate.seeds)} seeds", hoverinfo="skip",
        )  # fmt: skip
    figure.add_scatter(
        x=curve.steps, y=curve.mean, mode="lines", name="measured",
        line={"color": MEASURED, "width": 2.5},
    )  # fmt: skip
    figure.add_scatter(
        x=curve.steps, y=curve.promised, mode="lines", name="promised",
        line={"color": PROMISED, "width": 2.5, "dash": "dash"},
    )  # fmt: skip
    drawn = [*curve.mean, *curve.promised, *curve.lowest]
    figure.update_layout(
        template="none",
        xaxis={"title": {"text": "step"}, "zeroline": False},
        yaxis={
            "title": {"text": certificate.quantity, "standoff": 14},
            "nticks": 8,
            "type": "log" if _log_worthy(drawn) else "linear",
            "exponentformat": "power",
            "zeroline": False,
        },
        legend={"orientation": "h", "y": 1.12, "x": 0},
        margin={"l": 70, "r": 20, "t": 40, "b": 50},
        height=360,
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
    )
    return figure


def sparkline(certificate: Drawn, width: int = 140, height: int = 32) -> str:
    """Measured (solid) and promised (dashed) as a small inline SVG; decorative, hence hidden."""
    curve = certificate.curve
    series = (curve.mean, curve.promised)
    use_log = _log_worthy([*curve.mean, *curve.promised])

    def value(v: float) -> float | None:
        if not math.isfinite(v):
            return None
        return math.log10(v) if use_log else v

    flat = [v for s in series for v in map(value, s) if v is not None]
    if not flat:
        return ""
    low, high = min(flat), max(flat)
    span = (high - low) or 1.0
    paths = []
    for name, s in zip(("measured", "promised"), series, strict=True):
        points = [
            f"{2 + i * (width - 4) / max(1, len(s) - 1):.1f},"
            f"{height - 2 - (v - low) / span * (height - 4):.1f}"
            for i, v in enumerate(map(value, s))
            if v is not None
        ]
        paths.append(f'<polyline class="{name}" points="{" ".join(points)}"/>')
    return (
        f'<svg class="spark" aria-hidden="true" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}">{"".join(paths)}</svg>'
    )
