"""The study's own figures as they are embedded: without template, thinned, in the colours of the report."""

from __future__ import annotations

import base64
import itertools
import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from surefoot._verdict.curve import kept_steps
from surefoot.report.chart import LOGARITHMIC, log_ticks

# Told apart also by those who see no red or no green, and legible on white and on near-black.
PALETTE = ("#1098ad", "#e8590c", "#845ef7", "#2f9e44", "#d6336c", "#9a7b1e", "#868e96")
POINTS = 200
MOST_BYTES = 60_000
# Of so few whole numbers each has its tick, and none stands between them.
COUNTED = 10
# Relative difference below which two curves are one line.
SAME = 2e-3


def embedded_figure(figure: Mapping[str, Any]) -> dict[str, Any]:
    """A plotly figure for the page: no trace has more than 200 points, fewer where there are many traces.

    Of a longer one each stretch keeps its first, lowest and highest point. Numbers have five digits.
    """
    traces = [{k: _unpacked(v) for k, v in trace.items()} for trace in figure.get("data", [])]
    layout = {k: v for k, v in figure.get("layout", {}).items() if k != "template"}
    layout.setdefault("colorway", list(PALETTE))
    points = POINTS
    while True:
        thinned = [_plain(_thinned(trace, points)) for trace in traces]
        made = {"data": thinned, "layout": _without_crowding(_plain(layout), thinned)}
        if points <= 20 or len(json.dumps(made)) <= MOST_BYTES:
            return made
        points //= 2


def caption_of(name: str, figure: Mapping[str, Any]) -> str:
    """The figure's name, and its own title where that says more."""
    title = figure.get("layout", {}).get("title", "")
    title = title.get("text", "") if isinstance(title, Mapping) else title
    return f"{name}: {title}" if isinstance(title, str) and title and title != name else name


def coinciding(figure: Mapping[str, Any]) -> str:
    """Which curves of a figure lie on one another, in a sentence; nothing where none do."""
    curves: dict[str, tuple[Any, np.ndarray]] = {}
    for i, trace in enumerate(figure["data"]):
        y = trace.get("y")
        if trace.get("type", "scatter") != "scatter" or not isinstance(y, list) or len(y) < 2:
            continue
        try:
            values = np.array(y, dtype=float)
        except (TypeError, ValueError):
            continue
        curves[str(trace.get("name", f"curve {i + 1}"))] = (trace.get("x"), values)
    pairs = []
    for (a, (x, y)), (b, (other_x, other)) in itertools.combinations(curves.items(), 2):
        if (
            x == other_x
            and y.shape == other.shape
            and np.allclose(y, other, rtol=SAME, atol=0, equal_nan=True)
        ):
            pairs.append(f"{a} and {b}")
    return f"Coinciding here: {'; '.join(pairs)}." if pairs else ""


def _without_crowding(layout: dict[str, Any], traces: list[dict[str, Any]]) -> dict[str, Any]:
    """The title stands as the figure's caption, and ticks keep their distance and to whole numbers.

    A logarithmic axis says that it is one.
    """
    for name in ("width", "title"):
        layout.pop(name, None)
    for name in [k for k in layout if k.startswith(("xaxis", "yaxis"))]:
        axis = dict(layout[name])
        letter, number = name[0], name.removeprefix(f"{name[0]}axis")
        own = [t for t in traces if t.get(f"{letter}axis", letter) == f"{letter}{number}"]
        if "tickvals" not in axis and "dtick" not in axis:
            axis |= _ticks([v for t in own for v in t.get(letter) or []], axis.get("type"))
        if axis.get("type") == "log":
            axis["title"] = _titled(axis.get("title", ""))
        layout[name] = axis
    return layout


def _titled(title: Any) -> dict[str, Any]:
    """A title that says that the scale is logarithmic."""
    about = dict(title) if isinstance(title, Mapping) else {"text": title}
    text = str(about.get("text") or "")
    if "logarithmic" not in text:
        text = f"{text}, {LOGARITHMIC}" if text else LOGARITHMIC
    return about | {"text": text}


def _ticks(values: list[Any], kind: str | None) -> dict[str, Any]:
    """Those of the report's own pictures, for a logarithmic axis and for one that counts a few things."""
    numbers = [v for v in values if isinstance(v, (int, float)) and not isinstance(v, bool)]
    if kind == "log":
        above = [v for v in numbers if v > 0]
        found = log_ticks(min(above) / 1.2, max(above) * 1.2) if above else ()
        return {"tickvals": [v for v, _ in found], "ticktext": [label for _, label in found]}
    counts = bool(numbers) and len(numbers) == len(values) and all(v == int(v) for v in numbers)
    if counts and kind in (None, "-", "linear") and max(numbers) - min(numbers) <= COUNTED:
        return {"tick0": 0, "dtick": 1}
    return {}


def _thinned(trace: dict[str, Any], most: int) -> dict[str, Any]:
    y = trace.get("y")
    if not isinstance(y, list) or len(y) <= most or any(isinstance(v, str) for v in y[:1]):
        return trace
    try:
        values = np.array(y, dtype=float)
    except (TypeError, ValueError):
        return trace
    at = kept_steps(values, values, np.full(len(values), -1.0), most).tolist()
    made = dict(trace) | {"y": [y[i] for i in at]}
    x = trace.get("x")
    made["x"] = [x[i] for i in at] if isinstance(x, list) and len(x) == len(y) else at
    for name in ("text", "customdata", "hovertext", "ids"):
        if isinstance(made.get(name), list) and len(made[name]) == len(y):
            made[name] = [made[name][i] for i in at]
    return made


def _unpacked(value: Any) -> Any:
    """Plotly stores arrays of numbers as base64."""
    if not isinstance(value, Mapping) or "bdata" not in value or "dtype" not in value:
        return value
    array = np.frombuffer(base64.b64decode(value["bdata"]), dtype=np.dtype(value["dtype"]))
    if "shape" in value:
        array = array.reshape([int(n) for n in str(value["shape"]).split(",")])
    return array.tolist()


def _plain(value: Any) -> Any:
    """Numbers with five digits, as JSON has them."""
    if isinstance(value, Mapping):
        return {k: _plain(_unpacked(v)) for k, v in value.items()}
    if isinstance(value, list):
        return [_plain(v) for v in value]
    if isinstance(value, float):
        return float(f"{value:.5g}") if math.isfinite(value) else None
    return value
