"""Who takes part in a round, by coins that nobody can toss again."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from surefoot._numerics.checks import check_number


def draw_secretly(secret: torch.Generator, partitions: Sequence[int], fraction: float) -> list[int]:
    """The partitions of a round, each by a coin of its own: what amplification by sampling asks for.

    There may be none. Not `draw_partitions`, which follows from a seed that every client is told.

    Raises
    ------
    ValueError
        A fraction outside of (0, 1].
    """
    fraction = check_number("fraction", fraction, above=0, most=1)
    coins = torch.rand(len(partitions), generator=secret, dtype=torch.float64).tolist()
    return [p for p, coin in zip(sorted(partitions), coins, strict=True) if coin < fraction]
