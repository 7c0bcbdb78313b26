"""How far decoded networks are from a network as functions; never as weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from surefoot.architecture.net_batch import NetBatch

Loss = Literal["normalised", "plain"]
LOSSES: tuple[Loss, ...] = ("normalised", "plain")
VARIANCE_FLOOR = 1e-3


def errors_of(
    nets: NetBatch,
    x: Float[Tensor, "P D"],
    y: Float[Tensor, "B P K"],
    loss: Loss = "normalised",
) -> Float[Tensor, " B"]:
    """e = mean_i (f(x_i) - y_i)^2 / (var_i y_i + 1e-3), the mean over outputs; "plain" divides by nothing.

    Parameters
    ----------
    nets : NetBatch
        Decoded networks f.
    x : (P, D) tensor
        Inputs.
    y : (B, P, K) tensor
        What each network should give there.
    loss : "normalised" or "plain"
        Predicting the mean has the normalised error 1 (a little less where y hardly varies).
    """
    squared = (nets(x) - y).square().mean(1)
    if loss == "normalised":
        squared = squared / (y.var(1, correction=0) + VARIANCE_FLOOR)
    return squared.mean(-1)


def functional_loss(
    e: Float[Tensor, "B L"], winner_weight: float, all_weight: float
) -> Float[Tensor, ""]:
    """mean_N [winner_weight min_d e_d + all_weight sum_d e_d / L].

    Parameters
    ----------
    e : (B, L) tensor
        Errors of every decoder.
    winner_weight, all_weight : float
        (1, 0) is the paper's: only the decoder that wins learns, and some never do.
    """
    return (winner_weight * e.amin(-1) + all_weight * e.mean(-1)).mean()


def decoder_errors(
    decode: Callable[[Tensor, int], NetBatch],
    z: Float[Tensor, "B z"],
    x: Float[Tensor, "P D"],
    y: Float[Tensor, "B P K"],
    depths: int,
    loss: Loss = "normalised",
) -> Float[Tensor, "B L"]:
    """e_d of the decoder of every depth.

    Parameters
    ----------
    decode : callable
        (z, depth) -> networks.
    z : (B, z) tensor
        Embeddings.
    x, y : tensors
        As in `errors_of`.
    depths : int
        L.
    loss : "normalised" or "plain"
        As in `errors_of`.
    """
    found = [errors_of(decode(z, d), x, y, loss) for d in range(1, depths + 1)]
    return torch.stack(found, -1)
