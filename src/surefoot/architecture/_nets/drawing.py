"""Which weights a random network has: independent ones, or the authors' connected graph of edges."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor


def uniform(shape: Sequence[int], scale: float, generator: torch.Generator | None) -> Tensor:
    """U(-scale, scale), float32."""
    return (2 * torch.rand(shape, generator=generator, dtype=torch.float32) - 1) * scale


def choose(
    options: Sequence[float], n: int, generator: torch.Generator | None
) -> Float[Tensor, " n"]:
    """One of the options each, uniformly."""
    return torch.tensor(options, dtype=torch.float32)[
        torch.randint(len(options), (n,), generator=generator)
    ]


def independent(
    shapes: Sequence[Sequence[int]], rate: Float[Tensor, " n"], generator: torch.Generator | None
) -> list[Tensor]:
    """Masks in which each weight is 0 with its network's rate."""
    return [
        (
            torch.rand((len(rate), *s), generator=generator, dtype=torch.float32)
            >= rate[:, None, None]
        ).to(torch.float32)
        for s in shapes
    ]


def connected(
    shapes: Sequence[Sequence[int]],
    widths: Sequence[Tensor],
    rate: Float[Tensor, " n"],
    generator: torch.Generator | None,
) -> list[Tensor]:
    """Masks as the authors draw them: a random path from the inputs to the output, then random edges.

    Every input is linked to the first neuron of the path, which ends in every output; edges between active
    neurons are added until int(total (1 - rate)) of them exist.

    Parameters
    ----------
    shapes : sequence of (int, int)
        Of the weight matrices.
    widths : sequence of (n,) int tensors
        Active neurons of each hidden layer; they come first.
    rate : (n,) tensor
        Sparsity of each network.
    generator : torch.Generator, optional
        Draws all of it.
    """
    n = len(rate)
    masks = [torch.zeros(n, *s, dtype=torch.float32) for s in shapes]
    for i in range(n):
        ends = [shapes[0][0], *(int(w[i]) for w in widths), shapes[-1][1]]
        path = [int(torch.randint(k, (), generator=generator)) for k in ends[1:-1]]
        masks[0][i, :, path[0]] = 1
        for layer, (a, b) in enumerate(itertools.pairwise(path), 1):
            masks[layer][i, a, b] = 1
        masks[-1][i, path[-1]] = 1
        blocks = [m[i, :a, :b] for m, a, b in zip(masks, ends, ends[1:], strict=False)]
        there = torch.cat([b.reshape(-1) for b in blocks])
        missing = (there == 0).nonzero()[:, 0]
        wanted = int(len(there) * (1 - float(rate[i]))) - int(there.sum())
        if wanted > 0:
            there[missing[torch.randperm(len(missing), generator=generator)[:wanted]]] = 1
        at = 0
        for block in blocks:
            block.copy_(there[at : at + block.numel()].view(block.shape))
            at += block.numel()
    return masks
