"""Every edge of a network in one picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor, nn

from surefoot._numerics.checks import check_number
from surefoot.kan._edges.norms import checked_rows, curve_norms, inputs_of
from surefoot.kan.layer import KANLinear

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

COLUMNS = 8
POINTS = 121
BEYOND = 0.1
"""So much of the grid's width is drawn on either side of it."""


@dataclass(frozen=True)
class Panel:
    """One curve: where it is in the network, and what is shaded."""

    layer: int
    out_feature: int
    in_feature: int
    norm: float
    shade: tuple[float, float]


def plot_layers(modules: Sequence[nn.Module], x: Float[Tensor, "n in"] | None, most: int) -> Figure:
    """The curves of all layers among the modules; see `KAN.plot`."""
    most = check_number("most", most, least=1, most=400, whole=True)
    layers = [m for m in modules if isinstance(m, KANLinear)]
    if not layers:
        raise ValueError("the model must have at least one KANLinear to plot")
    if x is not None:
        checked_rows(x, layers[0].in_features)
        got = inputs_of(modules, x)
        inputs: list[Tensor | None] = [
            rows for m, rows in zip(modules, got, strict=False) if isinstance(m, KANLinear)
        ]
    else:
        inputs = [None] * len(layers)
    found = [p for n, layer in enumerate(layers) for p in _panels(n, layer, inputs[n])]
    chosen = found
    if len(found) > most:
        top = [max((p.norm for p in found if p.layer == n), default=0) for n in range(len(layers))]
        ranked = sorted(found, key=lambda p: -p.norm / (top[p.layer] or 1))[:most]
        chosen = [p for p in found if p in ranked]
    widths = "-".join(str(n) for n in [layers[0].in_features, *(m.out_features for m in layers)])
    title = f"KAN {widths}: all {len(found)} curves"
    if len(chosen) < len(found):
        title = (
            f"KAN {widths}: the {len(chosen)} of {len(found)} curves with the largest norm relative to their "
            "layer's"
        )
    return _picture(layers, chosen, title, x is not None)


def _panels(number: int, layer: KANLinear, x: Tensor | None) -> list[Panel]:
    seen = x
    if x is not None and layer.norm is not None:
        seen = layer.norm(x).detach()
    lo = layer.grid_lo if seen is None else seen.amin(0).double()
    hi = layer.grid_hi if seen is None else seen.amax(0).double()
    if x is None and layer.rule.basis != "bspline":
        # Their edges have no mean over a grid in all cases: the spline weights order them.
        norms = layer.spline_weight.detach().double().square().mean(-1).sqrt()
    else:
        norms = curve_norms(layer, x)
    return [
        Panel(number, o, i, float(norms[o, i]), (float(lo[i]), float(hi[i])))
        for o in range(layer.out_features)
        for i in range(layer.in_features)
        if layer.mask is None or bool(layer.mask[o, i])
    ]


def _picture(
    layers: Sequence[KANLinear], panels: Sequence[Panel], title: str, data: bool
) -> Figure:
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    places, row = [], 0
    for n in range(len(layers)):
        own = [p for p in panels if p.layer == n]
        places += [(row + at // COLUMNS + 1, at % COLUMNS + 1) for at in range(len(own))]
        row += math.ceil(len(own) / COLUMNS)
    rows, columns = max(row, 1), max((c for _, c in places), default=1)
    names = {place: _name(p) for place, p in zip(places, panels, strict=True)}
    figure = make_subplots(
        rows=rows, cols=columns, vertical_spacing=min(0.35 / rows, 0.2), horizontal_spacing=0.04,
        subplot_titles=[names.get((r + 1, c + 1), "") for r in range(rows) for c in range(columns)],
    )  # fmt: skip
    shapes = []
    for panel, (r, c) in zip(panels, places, strict=True):
        at, y = _curve(layers[panel.layer], panel)
        figure.add_trace(
            go.Scatter(x=at, y=y, mode="lines", line={"color": "#1f4e79", "width": 2},
                       name=_name(panel), showlegend=False), row=r, col=c,
        )  # fmt: skip
        axis = figure.data[-1].xaxis, figure.data[-1].yaxis
        shapes.append(
            {"type": "rect", "xref": axis[0], "yref": f"{axis[1]} domain", "x0": panel.shade[0],
             "x1": panel.shade[1], "y0": 0, "y1": 1, "fillcolor": "#f2c14e", "opacity": 0.25,
             "line": {"width": 0}, "layer": "below"}
        )  # fmt: skip
    for r, c in {(r + 1, c + 1) for r in range(rows) for c in range(columns)} - set(places):
        figure.update_xaxes(visible=False, row=r, col=c)
        figure.update_yaxes(visible=False, row=r, col=c)
    figure.update_annotations(font_size=11)
    shaded = "the inputs" if data else "the grid"
    figure.update_layout(
        title={"text": f"{title} (shaded: the range of {shaded})", "font": {"size": 15}},
        shapes=shapes, height=130 * rows + 110, margin={"l": 40, "r": 20, "t": 80, "b": 40},
        template="plotly_white", font={"size": 10},
    )  # fmt: skip
    return figure


def _curve(layer: KANLinear, panel: Panel) -> tuple[list[float], list[float]]:
    lo, hi = float(layer.grid_lo[panel.in_feature]), float(layer.grid_hi[panel.in_feature])
    lo, hi = min(lo, panel.shade[0]), max(hi, panel.shade[1])
    pad = BEYOND * (hi - lo)
    at = torch.linspace(
        lo - pad, hi + pad, POINTS, dtype=torch.float64, device=layer.grid_lo.device
    )
    with torch.no_grad():
        y = layer.curve(panel.out_feature, panel.in_feature)(at)
    return at.tolist(), y.double().tolist()


def _name(panel: Panel) -> str:
    return f"layer {panel.layer}: {panel.in_feature} → {panel.out_feature}"
