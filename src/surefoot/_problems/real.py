"""Features and labels of the small real tables, in the scale that the problems here use."""

from __future__ import annotations

from functools import cache

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from surefoot import data


@cache
def real(
    name: str, *, bias: bool = False
) -> tuple[Float64[Tensor, "N n"], Int64[Tensor, "N"] | Float64[Tensor, "N"]]:
    """A table of `surefoot.data`: digits as pixels in [0, 1], others with columns of mean 0 and sd 1.

    Parameters
    ----------
    name : str
        "digits", "diabetes", "breast_cancer", "wine" or "iris".
    bias : bool
        Whether a column of ones is appended.

    Returns
    -------
    tuple of Tensor
        (N, n) features and N class numbers, or N values where the table is one of a regression.
    """
    table = data.load(name)
    x, y = torch.tensor(table.x), torch.tensor(table.y)
    x = x / 16 if name == "digits" else (x - x.mean(dim=0)) / x.std(dim=0, correction=0)
    return (torch.cat([x, torch.ones(len(x), 1, dtype=x.dtype)], dim=1) if bias else x), y
