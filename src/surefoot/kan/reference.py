"""One spline layer, line by line as in the papers: for reading, and for tests of the fast one."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64


def kan_layer(
    x: Float64[np.ndarray, "n in"],
    spline_weight: Float64[np.ndarray, "out in bases"],
    base_weight: Float64[np.ndarray, "out in"],
    lo: Float64[np.ndarray, " in"],
    hi: Float64[np.ndarray, " in"],
    order: int,
) -> Float64[np.ndarray, "n out"]:
    """y_o = sum_i base_oi silu(x_i) + sum_j w_oij b_j(x_i).

    Source: arXiv 2404.19756, equation 2.10; the bases by Cox and de Boor's recursion.

    Parameters
    ----------
    x
        Inputs, a row each.
    spline_weight, base_weight
        Of every edge.
    lo, hi
        The ends of each input's grid.
    order
        Degree k; the grid has C - k cells.
    """
    n, out = len(x), len(spline_weight)
    y = np.zeros((n, out))
    for i in range(x.shape[1]):
        bases = cox_de_boor(x[:, i], lo[i], hi[i], spline_weight.shape[2] - order, order)
        silu = x[:, i] / (1 + np.exp(-x[:, i]))
        for o in range(out):
            y[:, o] += base_weight[o, i] * silu + bases @ spline_weight[o, i]
    return y


def cox_de_boor(
    x: Float64[np.ndarray, " n"], lo: float, hi: float, size: int, order: int
) -> Float64[np.ndarray, "n bases"]:
    """All bases at x, on knots that go on with the same distance beyond the ends."""
    h = (hi - lo) / size
    t = lo + h * (np.arange(size + 2 * order + 1) - order)
    b = np.stack([(t[j] <= x) & (x < t[j + 1]) for j in range(len(t) - 1)], -1).astype(float)
    for r in range(1, order + 1):
        b = np.stack(
            [
                (x - t[j]) / (t[j + r] - t[j]) * b[:, j]
                + (t[j + r + 1] - x) / (t[j + r + 1] - t[j + 1]) * b[:, j + 1]
                for j in range(b.shape[1] - 1)
            ],
            -1,
        )
    return b
