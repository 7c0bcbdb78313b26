"""Sums so close to zero that rounding decides which side of ReLU's kink they are on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from surefoot.reparam._block.facts import NAMED
from surefoot.reparam.block import ReparamConv2d

# Two ways of adding some hundred numbers differ by so many roundings of the largest.
ROUNDINGS = 1000


def _has_kink(module: nn.Module) -> bool:
    return isinstance(module, nn.ReLU) or (
        isinstance(module, ReparamConv2d) and module.activation == "relu"
    )


def all_seen(*models: nn.Module) -> bool:
    """Whether no module of theirs has a kink elsewhere than at the zero of its output."""
    return all(
        _has_kink(module)
        for model in models
        for module in model.modules()
        if NAMED.get(type(module)) == "relu"
    )


@contextmanager
def outputs(model: nn.Module) -> Iterator[list[Tensor]]:
    """What every ReLU of a model gives, in the order of the forward."""
    seen: list[Tensor] = []
    hooks = [
        module.register_forward_hook(lambda _, given, found: seen.append(found.detach()))
        for module in model.modules()
        if _has_kink(module)
    ]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def kinks(one: list[Tensor], two: list[Tensor]) -> int | None:
    """How many outputs are zero on one side and within rounding of it on the other.

    Parameters
    ----------
    one, two
        As `outputs` has them, of two networks on one batch.

    Returns
    -------
    None where they do not correspond. An output that is zero on one side only and no rounding on the other
    is a difference of the networks, and does not count.
    """
    if [x.shape for x in one] != [x.shape for x in two]:
        return None
    found = 0
    for a, b in zip(one, two, strict=True):
        size = float(torch.maximum(a.max(), b.max())) if a.numel() else 0.0
        least = ROUNDINGS * torch.finfo(a.dtype).eps * size
        found += int((((a > 0) != (b > 0)) & (torch.maximum(a, b) <= least)).sum())
    return found
