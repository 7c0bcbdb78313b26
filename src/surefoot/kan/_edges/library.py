"""The functions that a curve is compared with, and how each is fitted: a f(b t + c) + d on t in [-1, 1].

a and d follow from b and c by least squares, and of b and c a scale-free function needs one alone: a search
over one or two numbers from a fixed lattice, the best of which are then refined. Nothing is drawn at random.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.optimize import minimize, minimize_scalar

Array = np.ndarray[Any, np.dtype[np.float64]]
REFINED = 2
"""So many points of the lattice are refined."""


@dataclass(frozen=True)
class Shape:
    """A function f and where b and c are looked for.

    Attributes
    ----------
    text
        f of `{}`.
    numpy, torch
        f itself.
    place
        The b and c of a search point, rows (b, c).
    lattices
        The values of each coordinate of the search point.
    """

    text: str
    numpy: Callable[[Array], Array]
    torch: Callable[[torch.Tensor], torch.Tensor]
    place: Callable[[Array], Array]
    lattices: tuple[Array, ...]


def _shift(p: Array) -> Array:
    """A root at p: asinh coordinates reach far away."""
    return np.stack([np.ones_like(p[:, 0]), -np.sinh(p[:, 0])], 1)


def _outside(p: Array) -> Array:
    """A root outside of [-1, 1], 10^g from its end; the sign of the coordinate says which."""
    side = np.where(p[:, 0] >= 0, 1.0, -1.0)
    return np.stack([side, 1 + 10.0 ** (np.abs(p[:, 0]) - 5)], 1)


def _rate(p: Array) -> Array:
    return np.stack([np.sinh(p[:, 0]), np.zeros_like(p[:, 0])], 1)


def _centre(p: Array) -> Array:
    """A centre, and a logarithm of the slope."""
    b = np.exp(p[:, 1])
    return np.stack([b, -b * p[:, 0]], 1)


_roots = np.linspace(-5.5, 5.5, 221)
_ends = np.concatenate([-np.linspace(0.5, 7, 66)[::-1], np.linspace(0.5, 7, 66)])
_both = (np.linspace(-3, 3, 31), np.linspace(-2.3, 3.7, 25))
_zero = (np.zeros(1),)

LIBRARY: dict[str, Shape] = {
    "x": Shape("{}", lambda u: u, lambda u: u, lambda p: np.array([[1.0, 0.0]]), _zero),
    "x^2": Shape("({})^2", lambda u: u**2, lambda u: u**2, _shift, (_roots,)),
    "x^3": Shape("({})^3", lambda u: u**3, lambda u: u**3, _shift, (_roots,)),
    "x^4": Shape("({})^4", lambda u: u**4, lambda u: u**4, _shift, (_roots,)),
    "exp": Shape("exp({})", np.exp, torch.exp, _rate, (np.linspace(-3.7, 3.7, 150),)),
    "log": Shape("log({})", np.log, torch.log, _outside, (_ends,)),
    "sqrt": Shape("sqrt({})", np.sqrt, torch.sqrt, _outside, (_ends,)),
    "1/x": Shape("1/({})", lambda u: 1 / u, lambda u: 1 / u, _outside, (_ends,)),
    "abs": Shape("|{}|", np.abs, torch.abs, _shift, (np.arcsinh(np.linspace(-1, 1, 201)),)),
    "sin": Shape("sin({})", np.sin, torch.sin, _centre, ()),
    "cos": Shape("cos({})", np.cos, torch.cos, _centre, ()),
    "tanh": Shape("tanh({})", np.tanh, torch.tanh, _centre, _both),
    "arctan": Shape("arctan({})", np.arctan, torch.arctan, _centre, _both),
    "gaussian": Shape(
        "exp(-({})^2)", lambda u: np.exp(-(u**2)), lambda u: torch.exp(-(u**2)), _centre, _both
    ),
}
"""By simplicity: of two that fit alike the first is told."""


def fitted(
    names: Sequence[str], t: Array, y: Array, fastest: float
) -> dict[str, tuple[float, Array]]:
    """The share of the variance of y that each function leaves, and its (a, b, c, d).

    Parameters
    ----------
    names
        Of `LIBRARY`.
    t, y
        Points in [-1, 1] and the curve there, which must vary.
    fastest
        The largest frequency of a sine, in radians a unit of t.
    """
    waves = _waves(t, y, fastest) if {"sin", "cos"} & {*names} else {}
    return {n: waves[n] if n in waves else _fitted(n, t, y) for n in names}


def _fitted(name: str, t: Array, y: Array) -> tuple[float, Array]:
    shape = LIBRARY[name]
    lattice = np.stack([g.ravel() for g in np.meshgrid(*shape.lattices, indexing="ij")], 1)
    losses = np.concatenate([_losses(shape, p, t, y) for p in np.array_split(lattice, 8) if len(p)])
    best = np.argsort(losses, kind="stable")[:REFINED]
    found = [(float(losses[n]), lattice[n]) for n in best]
    steps = [np.diff(g).min() if len(g) > 1 else 0.0 for g in shape.lattices]
    if len(lattice) > 1:
        found += [_refined(shape, lattice[n], steps, t, y) for n in best]
    loss, point = min(found, key=lambda f: f[0])
    b, c = shape.place(point[None])[0]
    a, d = _line(shape.numpy(b * t + c), y)
    return loss, np.array([a, b, c, d])


def _losses(shape: Shape, points: Array, t: Array, y: Array) -> Array:
    place = shape.place(points)
    with np.errstate(all="ignore"):
        f = shape.numpy(place[:, :1] * t + place[:, 1:])
        f = f - f.mean(1, keepdims=True)
        own = (f**2).sum(1)
        centred = y - y.mean()
        a = f @ centred / own
        # As a residual and not as a difference of squares, which loses half of the digits.
        loss = ((centred - a[:, None] * f) ** 2).sum(1) / (centred**2).sum()
    return np.where(np.isfinite(loss), loss, np.inf)


def _refined(
    shape: Shape, start: Array, steps: list[float], t: Array, y: Array
) -> tuple[float, Array]:
    def loss(p: Any) -> Any:
        value = float(_losses(shape, np.atleast_2d(np.asarray(p, dtype=float)), t, y)[0])
        # Logarithms, as the loss of an exact fit falls by ten orders near its minimum.
        return float(np.log(value + 1e-30)) if value < np.inf else 1e9

    if len(start) == 1:
        width = steps[0]
        options: Any = {"xatol": 1e-9}
        r = minimize_scalar(
            lambda p: loss([p]), bounds=(start[0] - width, start[0] + width), method="bounded",
            options=options,
        )  # fmt: skip
        point = np.array([float(r.x)])
    else:
        simplex = start + np.array([[0.0, 0.0], [steps[0] / 2, 0.0], [0.0, steps[1] / 2]])
        options = {"xatol": 1e-7, "fatol": 1e-3, "maxiter": 120, "initial_simplex": simplex}
        point = np.asarray(minimize(loss, start, method="Nelder-Mead", options=options).x)
    return float(_losses(shape, point[None], t, y)[0]), point


def _line(f: Array, y: Array) -> tuple[float, float]:
    centred = f - f.mean()
    own = float(centred @ centred)
    a = float(centred @ (y - y.mean())) / own if own else 0.0
    return a, float(y.mean() - a * f.mean())


def _waves(t: Array, y: Array, fastest: float) -> dict[str, tuple[float, Array]]:
    """a sin(b t + c) is linear in a sin c and a cos c: one frequency alone is looked for, for both names."""

    def solved(b: Any) -> Any:
        columns = np.stack([np.sin(b * t), np.cos(b * t), np.ones_like(t)], 1)
        w, *_ = np.linalg.lstsq(columns, y, rcond=None)
        return float(((y - columns @ w) ** 2).sum() / ((y - y.mean()) ** 2).sum()), w

    lattice = np.geomspace(0.2, fastest, max(60, int(4 * fastest)))
    losses = np.array([solved(b)[0] for b in lattice])
    best = np.argsort(losses, kind="stable")[:REFINED]
    found = [(float(losses[n]), float(lattice[n])) for n in best]
    for n in best:
        options: Any = {"xatol": 1e-9}
        r = minimize_scalar(
            lambda b: np.log(solved(b)[0] + 1e-30), method="bounded", options=options,
            bounds=(lattice[max(n - 1, 0)], lattice[min(n + 1, len(lattice) - 1)]),
        )  # fmt: skip
        found.append((solved(float(r.x))[0], float(r.x)))
    loss, b = min(found)
    s, k, d = solved(b)[1]
    size = float(np.hypot(s, k))
    both = {}
    for name, phase in (("sin", np.arctan2(k, s)), ("cos", np.arctan2(-s, k))):
        a, c = size, float(phase)
        if abs(c) > np.pi / 2:  # the nearer of two phases
            a, c = -a, c - np.pi * np.sign(c)
        both[name] = (loss, np.array([a, b, c, float(d)]))
    return both
