"""B-splines of a uniform grid by their local polynomials, and what their derivatives cannot exceed.

G cells of width h on [lo, hi], degree k, C = G + k bases; basis j lives on k + 1 cells from lo + (j - k) h.
On one cell with coordinate u in [0, 1) the k + 1 bases that are not zero are fixed polynomials in u.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from surefoot._numerics.arguments import checked
from surefoot._numerics.checks import check_number


@functools.cache
def local_polynomials(order: int) -> Float64[np.ndarray, "k1 k1"]:
    """Row r: the coefficients in 1, u, .., u^k of the r-th basis of a cell; exact rationals, rounded once.

    By Cox-de Boor on integer knots, where the recursion keeps integers over k!.
    """
    # pieces[r]: basis r's polynomial on the cell [0, 1), degree by degree; knots of basis r start at r - d.
    pieces = [[1]]
    for d in range(1, order + 1):
        higher = [[0] * (d + 1) for _ in range(d + 1)]
        for r in range(d + 1):
            left = r - d
            if r > 0:  # (u - left) N^{d-1} of the basis that starts where this one does
                for p, a in enumerate(pieces[r - 1]):
                    higher[r][p] -= left * a
                    higher[r][p + 1] += a
            if r < d:  # (left + d + 1 - u) N^{d-1} of the next one
                for p, a in enumerate(pieces[r]):
                    higher[r][p] += (left + d + 1) * a
                    higher[r][p + 1] -= a
        pieces = higher
    return np.array(pieces, dtype=np.float64) / math.factorial(order)


@functools.cache
def derived_polynomials(order: int, derivative: int) -> Float64[np.ndarray, "k1 powers"]:
    """The derivative in u of each local polynomial; one zero column beyond the degree."""
    table = local_polynomials(order)
    for _ in range(derivative):
        table = table[:, 1:] * np.arange(1, table.shape[1])
        if not table.shape[1]:
            return np.zeros((order + 1, 1))
    return table


@functools.cache
def largest_norm(order: int, derivative: int = 0) -> float:
    """B_r = sup_x |b^(r)(x)|_2 for h = 1, over all bases; divide by h^r.

    The maximum over one open cell; outside the grid fewer bases are active. Derivatives beyond the degree
    are 0 except at the knots, where that of order k jumps: None of them has a bound on the next.
    """
    table = derived_polynomials(order, derivative)
    # |b|^2 is one polynomial on the cell: its maximum is at an end or where its derivative vanishes.
    square = np.zeros(2 * table.shape[1] - 1)
    for row in table:
        square += np.convolve(row, row)
    polynomial = np.polynomial.Polynomial(square)
    roots = polynomial.deriv().roots() if len(square) > 1 else np.zeros(0)
    inner = roots.real[(abs(roots.imag) < 1e-9) & (roots.real > 0) & (roots.real < 1)]
    return float(math.sqrt(max(polynomial(np.array([0.0, 1.0, *inner])))))


@checked
@dataclass(frozen=True)
class Grid:
    """G cells on [lo, hi], bases of degree `order`.

    Attributes
    ----------
    lo
        The lower end, in the units of the input.
    hi
        The upper end.
    size
        Cells G.
    order
        Degree k.
    """

    lo: float = -1.0
    hi: float = 1.0
    size: int = 5
    order: int = 3

    def __post_init__(self) -> None:
        check_number("grid_size", self.size, least=1, whole=True)
        check_number("spline_order", self.order, least=1, most=5, whole=True)
        check_number("lo, grid_range[0],", self.lo)
        check_number("hi, grid_range[1],", self.hi, above=self.lo)

    @property
    def h(self) -> float:
        """The width of a cell."""
        return (self.hi - self.lo) / self.size

    @property
    def bases(self) -> int:
        """C = G + k."""
        return self.size + self.order

    def largest_norm(self, derivative: int = 0) -> float:
        """B_r = sup_x |b^(r)(x)|_2."""
        return largest_norm(self.order, derivative) / self.h**derivative

    def __call__(self, x: Float[Tensor, "*n"], derivative: int = 0) -> Float[Tensor, "*n bases"]:
        """The bases, or their derivative of that order, at x; zero outside the extended knots."""
        return spline_bases(x, self.lo, self.h, self.size, self.order, derivative)


Policy = Literal["zero", "clamp", "linear"]
"""What a spline is beyond its grid: what its bases are there, its value at the end, or a straight line."""


def cells(
    x: Float[Tensor, "*n"],
    lo: float | Tensor,
    h: float | Tensor,
    size: int,
    order: int,
    inside: bool = False,
) -> tuple[Tensor, Float[Tensor, "*n"], Tensor]:
    """The cell of each x (int64), its coordinate u, and whether any basis may be other than 0 there.

    Cells go from -k to G + k - 1 with u in [0, 1), or with `inside` from 0 to G - 1, where u of an x
    outside the grid is below 0 or above 1. u is rounded once: computed in float64, where the plain float32
    form loses two digits at G = 200. Of a NaN, u is NaN and its cell alive, so that what it touches becomes
    NaN; of a dead x, u is 0.
    """
    t = (x.double() - lo) * (1 / h)
    whole = t.detach().floor()
    if inside:
        whole = whole.clamp(0, size - 1).nan_to_num()
        return (
            whole.to(torch.int64),
            (t - whole).to(x.dtype),
            torch.ones_like(whole, dtype=torch.bool),
        )
    alive = (whole != whole) | ((whole >= -order) & (whole < size + order))
    whole = torch.where(alive, whole, 0.0).nan_to_num()
    u = torch.where(alive, t - whole, 0.0).to(x.dtype)
    return whole.to(torch.int64), u, alive


def local_weights(
    u: Float[Tensor, "*n"], order: int, derivative: int = 0
) -> Float[Tensor, "*n k1"]:
    """The k + 1 bases of a cell at its coordinate u, or a derivative of them in u, by Horner's rule."""
    table = torch.from_numpy(derived_polynomials(order, derivative)).to(u)
    weights = table[:, -1].expand(*u.shape, order + 1)
    for p in range(table.shape[1] - 2, -1, -1):
        weights = weights * u[..., None] + table[:, p]
    # A constant polynomial would swallow a NaN.
    return weights + 0 * u[..., None] if table.shape[1] == 1 else weights


def spline_bases(
    x: Float[Tensor, "*n"],
    lo: float | Tensor,
    h: float | Tensor,
    size: int,
    order: int,
    derivative: int = 0,
    policy: Policy = "zero",
) -> Float[Tensor, "*n bases"]:
    """All C bases at x, or a derivative of them.

    Parameters
    ----------
    x
        Any shape, in the units of the grid.
    lo, h
        The first knot of the range and the width of a cell; tensors broadcast against x.
    size, order
        Cells G and degree k.
    derivative
        Of that order in x. At a knot the right limit; beyond the degree zero.
    policy
        What the bases are outside the grid; other than "zero" only without `derivative`.
    """
    cell, u, alive = cells(x, lo, h, size, order, policy != "zero")
    if policy == "zero":
        weights = local_weights(u, order, derivative)
        if derivative:
            scale = h**derivative
            weights = weights / (
                scale.to(x.dtype)[..., None] if isinstance(scale, Tensor) else scale
            )
        weights = torch.where(alive[..., None], weights, torch.zeros_like(weights))
    else:
        held = u.clamp(0, 1)
        weights = local_weights(held, order)
        if policy == "linear":
            weights = weights + local_weights(held, order, 1) * (u - held)[..., None]
    index = (cell + order)[..., None] + torch.arange(order + 1, device=x.device)
    room = weights.new_zeros(*x.shape, size + 3 * order)
    # Bases that would lie beyond either end fall off.
    return room.scatter(-1, index, weights)[..., order : 2 * order + size]


def dense_splines(
    x: Float[Tensor, "n in"],
    lo: Float[Tensor, " in"],
    h: Float[Tensor, " in"],
    size: int,
    order: int,
    policy: Policy,
    slopes: bool,
) -> tuple[Float[Tensor, "bases n in"], Float[Tensor, "bases n in"]]:
    """All bases and, where wanted (else the bases again), their derivatives in x, by Cox-de Boor.

    Every level is a few operations on whole tensors, where `spline_bases` scatters: several times faster,
    without a graph. Bases come first, so that the levels' slices are in one piece.
    """
    cell, u, alive = cells(x, lo, h, size, order, policy != "zero")
    held = u if policy == "zero" else u.clamp(0, 1)
    # Counted from the start of each basis's support; the dead start nowhere.
    start = torch.where(alive, cell + order, -order).to(x.dtype)
    at = start - torch.arange(size + 2 * order, device=x.device, dtype=x.dtype)[:, None, None]
    level = (at == 0).to(x.dtype)
    at += held
    slope = level
    for r in range(1, order + 1):
        if r == order and (slopes or policy == "linear"):
            slope = (level[:-1] - level[1:]).div_(h.to(x.dtype))
        own = at[: len(level) - 1]
        # t B_j + (r + 1 - t) B_{j+1}
        level = (level[:-1] - level[1:]).mul_(own).add_(level[1:], alpha=r + 1).div_(r)
    if policy == "zero":
        return level, slope if slopes else level
    beyond = u - held
    if policy == "linear":
        return level + slope * (beyond * h.to(x.dtype)), slope
    return level, torch.where(beyond == 0, slope, torch.zeros_like(slope)) if slopes else level
