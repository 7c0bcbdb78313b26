"""The four pictures: epsilon over T and over sigma, trade-offs, and the gain over (q, sigma)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int

from surefoot.privacy.composition import standard
from surefoot.privacy.gaussian_mechanism import full_batch
from surefoot.privacy.heuristic import last_iterate
from surefoot.report.figures import write_figure as write_figure

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

Array = np.ndarray
PROVEN, HEURISTIC, SIMPLE = (
    "proven (guarantee)",
    "heuristic, not a guarantee",
    "full batch, no bound",
)


def _lines(
    x: Float[Array, " points"] | Int[Array, " points"],
    curves: dict[str, list[float]],
    x_title: str,
    log_x: bool = True,
) -> Figure:
    import plotly.graph_objects as go

    figure = go.Figure()
    dashes = {PROVEN: "solid", HEURISTIC: "dash", SIMPLE: "dot"}
    for name, y in curves.items():
        # A logarithmic axis has no place for 0.
        shown = [v if v > 0 else None for v in y]
        dash = dashes.get(name, "solid")
        figure.add_scatter(x=x, y=shown, name=name, mode="lines", line={"dash": dash})
    figure.update_xaxes(title=x_title, type="log" if log_x else "linear")
    figure.update_yaxes(title="epsilon", type="log")
    return figure


def curve_figure(
    steps: Int[Array, " points"],
    curves: tuple[list[float], list[float], list[float]],
    delta: float,
    audits: Sequence[tuple[float, float]] = (),
) -> Figure:
    """Epsilon against T, doubly logarithmic: proven, heuristic, full batch; audits point upwards."""
    figure = _lines(steps, dict(zip((PROVEN, HEURISTIC, SIMPLE), curves, strict=True)), "steps T")
    if audits:
        x, y = zip(*audits, strict=True)
        figure.add_scatter(
            x=x, y=y, name="audit, lower bound", mode="markers",
            marker={"symbol": "triangle-up", "size": 11},
        )  # fmt: skip
    figure.update_layout(title=f"epsilon at delta {delta:g}")
    return figure


def steps_figure(
    sigma: float,
    q: float,
    steps: Int[Array, " points"],
    delta: float,
    audits: Sequence[tuple[float, float]] = (),
) -> Figure:
    """`curve_figure` with its curves computed."""
    curves: tuple[list[float], list[float], list[float]] = ([], [], [])
    for t in map(int, steps):
        curves[0].append(standard(sigma, q, t).epsilon(delta).value)
        curves[1].append(last_iterate(sigma, q, t).epsilon(delta).value)
        curves[2].append(full_batch(sigma, q, t).epsilon(delta).value)
    figure = curve_figure(steps, curves, delta, audits)
    figure.update_layout(title=f"epsilon at delta {delta:g}: sigma {sigma:g}, sample rate {q:g}")
    return figure


def noise_figure(q: float, steps: int, delta: float, sigmas: Float[Array, " points"]) -> Figure:
    """Epsilon against the noise multiplier."""
    curves: dict[str, list[float]] = {PROVEN: [], HEURISTIC: [], SIMPLE: []}
    for s in map(float, sigmas):
        curves[PROVEN].append(standard(s, q, steps).epsilon(delta).value)
        curves[HEURISTIC].append(last_iterate(s, q, steps).epsilon(delta).value)
        curves[SIMPLE].append(full_batch(s, q, steps).epsilon(delta).value)
    figure = _lines(sigmas, curves, "noise multiplier sigma")
    figure.update_layout(title=f"epsilon at delta {delta:g}: sample rate {q:g}, {steps} steps")
    return figure


def tradeoff_figure(
    sigma: float,
    q: float,
    steps: int,
    audited: tuple[float, float] | None = None,
    points: int = 80,
) -> Figure:
    """False negative against false positive rates of the best test, with an audited point."""
    import plotly.graph_objects as go

    fpr = np.linspace(0, 1, points)
    figure = go.Figure()
    for name, mechanism in (
        (PROVEN, standard(sigma, q, steps)),
        (HEURISTIC, last_iterate(sigma, q, steps)),
    ):
        figure.add_scatter(x=fpr, y=mechanism.tradeoff(fpr).value, name=name, mode="lines")
    figure.add_scatter(x=[0, 1], y=[1, 0], name="no leakage", mode="lines", line={"dash": "dot"})
    if audited is not None:
        figure.add_scatter(x=[audited[0]], y=[audited[1]], name="audit", mode="markers")
    figure.update_xaxes(title="false positive rate")
    figure.update_yaxes(title="false negative rate")
    figure.update_layout(title=f"trade-off: sigma {sigma:g}, sample rate {q:g}, {steps} steps")
    return figure


def gain_figure(
    q: Float[Array, " rates"],
    sigma: Float[Array, " sigmas"],
    ratio: Float[Array, "rates sigmas"],
    title: str,
) -> Figure:
    """Proven over heuristic epsilon as a heat map."""
    import plotly.graph_objects as go

    figure = go.Figure(
        go.Heatmap(
            x=[f"{s:g}" for s in sigma],
            y=[f"{r:g}" for r in q],
            z=ratio,
            colorscale="Viridis",
            colorbar={"title": "proven / heuristic"},
            texttemplate="%{z:.2f}",
        )
    )
    figure.update_xaxes(title="noise multiplier sigma", type="category")
    figure.update_yaxes(title="sample rate q", type="category")
    figure.update_layout(title=title)
    return figure
