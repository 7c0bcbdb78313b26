"""The attention layer line by line, for teaching and for the test that the fast forms equal it.

Z <- Z - (1/n) P Z M (Z' Q Z) with Q = [[A, 0], [0, 0]], P = [[0, 0], [u', 1]] and M = diag(I_n, 0): the query
is no key. Cost O(L n^2 d) per prompt.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor


def prompt_matrix(
    X: Float[Tensor, "batch d n"], y: Float[Tensor, "batch n"], xq: Float[Tensor, "batch d"]
) -> Float[Tensor, "batch rows columns"]:
    """Z_0: columns (x_i; y_i), then (x_q; 0)."""
    features = torch.cat([X, xq[..., None]], -1)
    labels = torch.cat([y, y.new_zeros(*y.shape[:-1], 1)], -1)
    return torch.cat([features, labels[..., None, :]], -2)


def attention(
    Z: Float[Tensor, "batch rows columns"], P: Tensor, Q: Tensor
) -> Float[Tensor, "batch rows columns"]:
    """P Z M (Z' Q Z), without the residual connection and without 1/n."""
    keys = torch.cat([Z[..., :-1], torch.zeros_like(Z[..., -1:])], -1)
    scores = torch.einsum("bri,rs,bsj->bij", Z, Q, Z)
    return torch.einsum("pr,bri,bij->bpj", P, keys, scores)


def blocks(A: Float[Tensor, "d d"], u: Float[Tensor, " d"]) -> tuple[Tensor, Tensor]:
    """The full P and Q of a layer's A and u."""
    d = A.shape[0]
    zero = A.new_zeros(d, 1)
    Q = torch.cat([torch.cat([A, zero], 1), A.new_zeros(1, d + 1)])
    P = torch.cat([A.new_zeros(d, d + 1), torch.cat([u, u.new_ones(1)])[None]])
    return P, Q


def predict(
    X: Float[Tensor, "batch d n"],
    y: Float[Tensor, "batch n"],
    xq: Float[Tensor, "batch d"],
    layers: Sequence[Float[Tensor, "d d"]],
    u: Float[Tensor, " d"],
) -> Float[Tensor, " batch"]:
    """-[Z_L]_{d+1, n+1}."""
    n = X.shape[-1]
    Z = prompt_matrix(X, y, xq)
    for A in layers:
        P, Q = blocks(A, u)
        Z = Z - attention(Z, P, Q) / n
    return -Z[..., -1, -1]
