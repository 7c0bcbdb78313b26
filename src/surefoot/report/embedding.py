"""The study's own figures as they are embedded: without template, thinned, in the colours of the report."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from surefoot._verdict.curve import kept_steps

# Told apart also by those who see no red or no green, and legible on white and on near-black.
PALETTE = ("#1098ad", "#e8590c", "#7048e8", "#2f9e44", "#c2255c", "#8a6d1b", "#868e96")
POINTS = 200
MOST_BYTES = 60_000


def embedded_figure(figure: Mapping[str, Any]) -> dict[str, Any]:
    """A plotly figure for the page: no trace has more than 200 points, fewer where there are many traces.

    Of a longer one each stretch keeps its first, lowest and highest point. Numbers have five digits.
    """
    traces = [dict(t) for t in figure.get("data", [])]
    layout = {k: v for k, v in figure.get("layout", {}).items() if k != "template"}
    layout.setdefault("colorway", list(PALETTE))
    _without_crowding(layout)
    points = POINTS
    while True:
        made = {"data": [_thinned(t, points) for t in traces], "layout": layout}
        if points <= 20 or len(json.dumps(made)) <= MOST_BYTES:
            return made
        points //= 2


def caption_of(name: str, figure: Mapping[str, Any]) -> str:
    """The figure's name, and its own title where that says more."""
    title = figure.get("layout", {}).get("title", "")
    title = title.get("text", "") if isinstance(title, Mapping) else title
    return f"{name}: {title}" if isinstance(title, str) and title and title != name else name


def _without_crowding(layout: dict[str, Any]) -> None:
    """The title stands as the figure's caption, and ticks of logarithmic axes keep their distance."""
    for name in ("width", "title"):
        layout.pop(name, None)
    for name in [k for k in layout if k.startswith(("xaxis", "yaxis"))]:
        axis = dict(layout[name])
        if axis.get("type") == "log" and "tickvals" not in axis and "dtick" not in axis:
            axis |= {"nticks": 7, "exponentformat": "power"}
        layout[name] = axis


def _thinned(trace: dict[str, Any], most: int) -> dict[str, Any]:
    made = {k: _plain(v) for k, v in trace.items()}
    x, y = made.get("x"), made.get("y")
    if not isinstance(y, list) or len(y) <= most or not _numbers(y):
        return made
    values = np.array([math.nan if v is None else v for v in y], dtype=float)
    at = kept_steps(values, values, np.full(len(values), -1.0), most)
    made["y"] = [y[i] for i in at]
    made["x"] = [x[i] for i in at] if isinstance(x, list) and len(x) == len(y) else at.tolist()
    for name in ("text", "customdata", "hovertext", "ids"):
        if isinstance(made.get(name), list) and len(made[name]) == len(y):
            made[name] = [made[name][i] for i in at]
    return made


def _numbers(values: list[Any]) -> bool:
    return all(v is None or (isinstance(v, (int, float)) and not isinstance(v, bool)) for v in values)


def _plain(value: Any) -> Any:
    """Numbers with five digits; plotly stores arrays of them as base64."""
    if isinstance(value, Mapping):
        if "bdata" in value and "dtype" in value:
            array = np.frombuffer(base64.b64decode(value["bdata"]), dtype=np.dtype(value["dtype"]))
            if "shape" in value:
                array = array.reshape([int(n) for n in str(value["shape"]).split(",")])
            return _plain(array.tolist())
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_plain(v) for v in value]
    if isinstance(value, float):
        return float(f"{value:.5g}") if math.isfinite(value) else None
    return value
