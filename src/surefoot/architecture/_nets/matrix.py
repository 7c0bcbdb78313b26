"""Networks of one depth as matrices of max(D, W) rows: what the weight-reading encoders read.

"paper" (arXiv 2410.08339, authors' code): W_1 with its rows in the middle, W_2..W_l, W_{l+1} in K columns,
then a column of gates a layer; no biases, one activation. Width W l + K + l.

"full" (arXiv 2506.08270, authors' code): of each hidden layer W columns of weights, one of biases, |A| of
activations; of the output, transposed, W + 1 columns for every max(D, W) outputs; then the gates. Width
(W + 1 + |A|) l + (W + 1) ceil(K / rows) + l.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from surefoot.architecture._nets.family import Family, shapes

Layout = Literal["full", "paper"]
LAYOUTS = ("full", "paper")


class Parts(NamedTuple):
    """The tensors of a batch, as `NetBatch` takes them."""

    weights: list[Tensor]
    biases: list[Tensor]
    gates: list[Tensor]
    acts: list[Tensor]


def rows_of(space: Family) -> int:
    """Rows of either layout."""
    return max(space.n_in, space.max_width)


def columns_of(space: Family, depth: int, layout: Layout) -> int:
    """Columns of a layout."""
    W, K = space.max_width, space.n_out
    if layout == "paper":
        return W * depth + K + depth
    blocks = -(-K // rows_of(space))
    return (W + 1 + len(space.activations)) * depth + (W + 1) * blocks + depth


def write(parts: Parts, space: Family, layout: Layout) -> Float[Tensor, "B rows columns"]:
    """The matrices of a batch."""
    rows, depth = rows_of(space), len(parts.gates)
    found: list[Tensor] = []
    for i, w in enumerate(parts.weights):
        if layout == "paper":
            found.append(_below(w, rows, (rows - w.shape[1]) // 2 if i == 0 else 0))
        elif i < depth:
            found += [_below(t, rows) for t in (w, parts.biases[i][..., None], parts.acts[i])]
        else:
            out = torch.cat([w.mT, parts.biases[i][..., None]], -1)
            blocks = out.split(rows, 1)  # type: ignore[no-untyped-call]
            found += [_below(block, rows) for block in blocks]
    found.append(_below(torch.stack(parts.gates, -1), rows))
    return torch.cat(found, -1)


def read(
    matrix: Float[Tensor, "B rows columns"], space: Family, depth: int, layout: Layout
) -> Parts:
    """The tensors that `write` wrote."""
    W, K, rows = space.max_width, space.n_out, rows_of(space)
    at = 0

    def take(height: int, width: int, top: int = 0) -> Tensor:
        nonlocal at
        at += width
        return matrix[:, top : top + height, at - width : at].contiguous()

    parts = Parts([], [], [], [])
    for i, (n_in, n_out) in enumerate(shapes(space, depth)):
        if layout == "paper":
            parts.weights.append(take(n_in, n_out, (rows - n_in) // 2 if i == 0 else 0))
            parts.biases.append(matrix.new_zeros(len(matrix), n_out))
            if i < depth:
                parts.acts.append(matrix.new_ones(len(matrix), W, 1))
        elif i < depth:
            parts.weights.append(take(n_in, n_out))
            parts.biases.append(take(n_out, 1)[..., 0])
            parts.acts.append(take(n_out, len(space.activations)))
        else:
            heights = [min(rows, K - top) for top in range(0, K, rows)]
            out = torch.cat([take(height, W + 1) for height in heights], 1)
            parts.weights.append(out[..., :W].mT.contiguous())
            parts.biases.append(out[..., W].contiguous())
    parts.gates.extend(g.contiguous() for g in take(W, depth).unbind(-1))
    return parts


def _below(x: Float[Tensor, "B n c"], rows: int, top: int = 0) -> Float[Tensor, "B rows c"]:
    return torch.nn.functional.pad(x, (0, 0, top, rows - top - x.shape[1]))
