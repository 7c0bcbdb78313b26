"""Implied weights against those of k steps of gradient descent."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from jaxtyping import Float
from torch import Tensor

from surefoot.in_context._forms.feature import descend

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

COLUMNS = 4
MOST = 64
"""So many held-out prompts are drawn."""


def weights_figure(
    title: str,
    errors: Mapping[int, float],
    preconditioners: Mapping[int, Float[Tensor, "d d"]],
    Sh: Float[Tensor, "B d d"],
    g: Float[Tensor, "B d"],
    W: Float[Tensor, "B d"],
) -> Figure:
    """A panel for each k: a point is one weight of one prompt, on the line where the two agree.

    Parameters
    ----------
    title
        Above the panels.
    errors, preconditioners
        Of the best fit of k steps, by k.
    Sh, g, W
        XX'/n, Xy/n and the implied weights of held-out prompts.
    """
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    count = len(errors)
    columns = min(COLUMNS, count)
    rows = math.ceil(count / columns)
    figure = make_subplots(
        rows=rows, cols=columns, shared_xaxes="all", shared_yaxes="all",
        horizontal_spacing=0.03, vertical_spacing=0.16 / rows,
        subplot_titles=[
            f"k = {k}: error {error:.2g}" for k, error in errors.items()
        ],
    )  # fmt: skip
    some = W[:MOST].flatten().tolist()
    edge = 1.1 * max(map(abs, some), default=1.0) or 1.0
    for at, (k, A) in enumerate(preconditioners.items()):
        place = {"row": at // columns + 1, "col": at % columns + 1}
        figure.add_trace(
            go.Scatter(x=[-edge, edge], y=[-edge, edge], mode="lines", hoverinfo="skip",
                       line={"color": "#e8590c", "width": 1.5}, showlegend=False), **place,
        )  # fmt: skip
        steps = descend(Sh[:MOST], g[:MOST], [A] * k)[-1].flatten().tolist()
        figure.add_trace(
            go.Scatter(x=steps, y=some, mode="markers", showlegend=False, name=f"k = {k}",
                       marker={"color": "#1098ad", "size": 4, "opacity": 0.6}), **place,
        )  # fmt: skip
    # One diverging prompt would squeeze all others into a dot.
    figure.update_xaxes(range=[-edge, edge])
    figure.update_yaxes(range=[-edge, edge])
    for c in range(columns):
        figure.update_xaxes(title_text="k steps", row=rows, col=c + 1)
    for r in range(rows):
        figure.update_yaxes(title_text="implied", row=r + 1, col=1)
    figure.update_annotations(font_size=12)
    figure.update_layout(
        title={"text": f"{title}<br><sup>weights of {min(MOST, len(W))} held-out prompts: implied by the "
                       "answers, and of k steps with the best A</sup>", "font": {"size": 15}},
        height=250 * rows + 130, margin={"l": 60, "r": 20, "t": 110, "b": 60},
        template="plotly_white",
    )  # fmt: skip
    return figure
