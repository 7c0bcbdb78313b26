"""An edge as a formula, where one fits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from surefoot._numerics.arguments import checked
from surefoot._numerics.checks import check_choice, check_number
from surefoot.kan._edges.library import LIBRARY, fitted
from surefoot.kan._edges.norms import check_layer, checked_rows
from surefoot.kan.layer import KANLinear

POINTS_A_CELL = 8
ALIKE = 2.0
"""A simpler function is told if it leaves at most so many times the variance that the best one leaves .."""
NOISE = 1e-6
""".. plus this share of all variance."""


@checked(nan=True)
@dataclass(frozen=True)
class Formula:
    """a f(b x + c) + d.

    Attributes
    ----------
    name
        Of f, or "constant".
    a
        The scale of the output.
    b
        The scale of the input.
    c
        The offset of the input.
    d
        The offset of the output.
    R2
        The share of the curve's variance that it explains, 1 for a constant curve.
    interval
        Where it was compared with the curve, in the units of the input.
    candidates
        R2 of every function that was tried, best first.
    """

    name: str
    a: float
    b: float
    c: float
    d: float
    R2: float
    interval: tuple[float, float]
    candidates: dict[str, float] = field(default_factory=dict, repr=False, compare=False)

    def __call__(self, x: Any) -> Any:
        """At a number, an array or a tensor; outside of `interval` nothing is known of the edge."""
        if self.name == "constant":
            if isinstance(x, Tensor):
                return torch.full_like(x, self.d)
            return np.full_like(np.asarray(x, dtype=float), self.d)
        shape = LIBRARY[self.name]
        if isinstance(x, Tensor):
            return self.a * shape.torch(self.b * x + self.c) + self.d
        return self.a * shape.numpy(self.b * np.asarray(x, dtype=float) + self.c) + self.d

    def __str__(self) -> str:
        if self.name == "constant":
            return f"{self.d:.4g}"
        inner = _sum(_product(self.b, "x"), self.c)
        if self.name == "x":
            return _sum(_product(self.a * self.b, "x"), self.a * self.c + self.d)
        text = LIBRARY[self.name].text.format(inner).replace("(x)^", "x^").replace("/(x)", "/x")
        return _sum(_product(self.a, text), self.d)


@checked
def formula(
    layer: KANLinear, out_feature: int, in_feature: int, *, x: Float[Tensor, "n in"] | None = None,
    library: Sequence[str] | None = None, least_R2: float = 0.99,
) -> Formula:  # fmt: skip
    """The edge as a f(b x + c) + d, with f from a small library.

    Least squares over points spread evenly on the edge's grid. Of functions that fit alike the simplest is
    told. Nothing is drawn at random.

    Parameters
    ----------
    layer
        Its splines must be "bspline"; or of any basis, with x.
    out_feature, in_feature
        Which edge.
    x
        Inputs of the layer: the points are spread over their range, which is where the edge was trained.
    library
        Names out of x, x^2, x^3, x^4, exp, log, sqrt, 1/x, abs, sin, cos, tanh, arctan, gaussian, which is
        exp(-u^2); by default all.
    least_R2
        A worse fit is refused.

    Raises
    ------
    ValueError
        No function fits as well, and then it tells the best one and its R2; or an argument is out of range.
    """
    curve = check_layer(layer).curve(out_feature, in_feature)
    least = check_number("least_R2", least_R2, least=0, most=1)
    names = tuple(LIBRARY) if library is None else tuple(library)
    for name in names:
        check_choice("library", name, LIBRARY)
    if not names:
        raise ValueError(f"library must name at least one of {', '.join(LIBRARY)}, got none")
    lo, hi = _interval(layer, in_feature, x)
    t = np.linspace(-1, 1, max(200, POINTS_A_CELL * layer.grid_size) + 1)
    mid, half = (lo + hi) / 2, (hi - lo) / 2
    with torch.no_grad():
        at = torch.from_numpy(mid + half * t).to(layer.grid_lo.device)
        y = curve(at).double().cpu().numpy()
    scale = float(np.abs(y).max())
    # Of a constant the weights are alike, and the bases sum to 1, up to roundings of the weight's dtype.
    if float(np.ptp(y)) <= 64 * torch.finfo(layer.weight.dtype).eps * scale or not scale:
        return Formula("constant", 0.0, 0.0, 0.0, float(y.mean()), 1.0, (lo, hi))
    fits = fitted(names, t, y, max(12.0, np.pi * layer.grid_size / 2))
    smallest = min(loss for loss, _ in fits.values())
    chosen = next(n for n in LIBRARY if n in fits and fits[n][0] <= ALIKE * smallest + NOISE)
    # The same curve, and in the library for its other name.
    if chosen == "sin" and "cos" in fits and abs(fits["cos"][1][2]) < abs(fits["sin"][1][2]):
        chosen = "cos"
    ranked = {n: 1 - fits[n][0] for n in sorted(fits, key=lambda n: fits[n][0])}
    a, b, c, d = (float(v) for v in fits[chosen][1])
    found = Formula(
        chosen, a, b / half, c - b * mid / half, d, 1 - fits[chosen][0], (lo, hi), ranked
    )
    if least > found.R2:
        raise ValueError(
            f"edge {in_feature} -> {out_feature} is none of {', '.join(names)}: the best is {found} with "
            f"R2 = {found.R2:.4g}, and least_R2 is {least:g}"
        )
    return found


def _interval(layer: KANLinear, i: int, x: Tensor | None) -> tuple[float, float]:
    if x is not None:
        rows = checked_rows(x, layer.in_features).double()
        seen = (rows if layer.norm is None else layer.norm(x).detach().double())[:, i]
        lo, hi = float(seen.min()), float(seen.max())
        if not lo < hi:
            raise ValueError(f"x must vary in column {i}, got {lo:g} in all rows")
        return lo, hi
    if layer.rule.basis != "bspline":
        raise ValueError(f"x must be given: edges of basis={layer.rule.basis!r} have no grid")
    return float(layer.grid_lo[i]), float(layer.grid_hi[i])


def _product(factor: float, text: str) -> str:
    shown = f"{factor:.4g}"
    return {"1": text, "-1": f"-{text}"}.get(shown, f"{shown}*{text}")


def _sum(text: str, more: float) -> str:
    return (
        text
        if f"{more:.4g}" in ("0", "-0")
        else f"{text} {'-' if more < 0 else '+'} {abs(more):.4g}"
    )
