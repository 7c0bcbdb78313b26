"""How well an autoencoder represents networks that it has never seen: bounds at a stated confidence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from surefoot.architecture._autoencoder.loss import decoder_errors
from surefoot.architecture._quantile import upper_bound
from surefoot.architecture.net_batch import NetBatch
from surefoot.architecture.space import MLPSpace

POINTS = 512
COLLAPSED = 0.02
Embed = Callable[[NetBatch], Tensor]
Decode = Callable[[Tensor, int], NetBatch]


def draw(space: MLPSpace, n: int, generator: torch.Generator) -> list[NetBatch]:
    """n networks, the depth of each uniform and independent, as one batch for every depth that occurs."""
    depths = torch.randint(1, space.max_depth + 1, (n,), generator=generator)
    counts = torch.bincount(depths, minlength=space.max_depth + 1)[1:].tolist()
    return [space.sample(c, d, generator) for d, c in enumerate(counts, 1) if c]


@torch.no_grad()
def errors_on(
    nets: list[NetBatch], x: Float[Tensor, "P D"], embed: Embed, decode: Decode, L: int
) -> Float[np.ndarray, "n L"]:
    """The normalised errors of every decoder, hard, in the order of the networks.

    Parameters
    ----------
    nets : list of NetBatch
        Networks to embed and decode.
    x : (P, D) tensor
        Inputs at which both are compared.
    embed, decode : callable
        The autoencoder's.
    L : int
        Decoders.
    """
    found = [decoder_errors(decode, embed(batch), x, batch(x), L).double() for batch in nets]
    return torch.cat(found).numpy()


@torch.no_grad()
def identity_ratios(
    nets: list[NetBatch], embed: Embed, generator: torch.Generator
) -> Float[np.ndarray, " n"]:
    """|z(N) - z(PN)| / median |z(N) - z(N')| of every network, P a random permutation of its hidden neurons.

    Parameters
    ----------
    nets : list of NetBatch
        Two or more networks; the median is over those of one depth, of all where it has but one.
    embed : callable
        The autoencoder's.
    generator : torch.Generator
        Draws the permutations.
    """
    known = [embed(batch).double() for batch in nets]
    everywhere = torch.pdist(torch.cat(known)).median()
    ratios = []
    for batch, z in zip(nets, known, strict=True):
        moved = (z - embed(batch.permuted(generator)).double()).norm(dim=-1)
        scale = torch.pdist(z).median() if len(z) > 1 else everywhere
        # Nothing apart from nothing is the same.
        ratios.append(torch.where(moved == 0, 0.0, moved / scale))
    return torch.cat(ratios).numpy()


def summary(
    errors: Float[np.ndarray, "n L"], depth: Int[np.ndarray, " n"], confidence: float
) -> dict[str, Any]:
    """Medians, bounds and winners, overall and by depth.

    Parameters
    ----------
    errors : (n, L) array
        Of every decoder on every network.
    depth : (n,) array
        Of the networks.
    confidence : float
        Of each bound.
    """
    best, L = errors.min(1), errors.shape[1]
    winners = np.bincount(errors.argmin(1), minlength=L) / len(errors)
    own = errors[np.arange(len(errors)), depth - 1]

    def of(values: Float[np.ndarray, " m"]) -> dict[str, float]:
        if not len(values):
            return {"n": 0}
        return {
            "n": len(values),
            "median": float(np.median(values)),
            "median_bound": upper_bound(values, 0.5, confidence),
            "q90_bound": upper_bound(values, 0.9, confidence),
        }

    return {
        **of(best),
        "winners": winners,
        "mean": float(best.mean()),
        "own_depth_median": float(np.median(own)),
        "by_source_depth": {d: of(best[depth == d]) for d in range(1, L + 1)},
        "by_decoder_depth": {d: of(errors[:, d - 1]) for d in range(1, L + 1)},
        "collapsed": [d for d, share in enumerate(winners, 1) if share < COLLAPSED],
    }
