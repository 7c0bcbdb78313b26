"""The inputs that a network reads, as its first module."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Int, Shaped
from torch import Tensor, nn

from surefoot._numerics.arguments import checked
from surefoot._numerics.checks import check_number
from surefoot._numerics.transforms import tracing


@checked
class Select(nn.Module):
    """The columns of x that are read, in the order of `index`: a buffer, no parameter.

    Parameters
    ----------
    index : sequence of int or (k,) int64 tensor
        Columns, counted from 0; none at all is allowed.
    n_features : int, optional
        How many columns x must have; where given, another number is an error.

    Raises
    ------
    ValueError
        A column is negative, no whole number, or not below `n_features`; or x has other columns.
    """

    index: Tensor

    def __init__(
        self, index: Sequence[int] | Int[Tensor, " k"], n_features: int | None = None
    ) -> None:
        super().__init__()
        listed = index.tolist() if isinstance(index, Tensor) else list(index)
        columns = [check_number("index", i, least=0, whole=True) for i in listed]
        if n_features is not None:
            n_features = check_number("n_features", n_features, least=0, whole=True)
            if any(i >= n_features for i in columns):
                raise ValueError(
                    f"index must be below n_features = {n_features}, got {max(columns)}"
                )
        self.n_features = n_features
        self.register_buffer("index", torch.tensor(columns, dtype=torch.int64))

    def forward(self, x: Shaped[Tensor, "*batch features"]) -> Shaped[Tensor, "*batch k"]:
        """The columns that are read."""
        # A tracer would make a constant of the comparison, and warn.
        if self.n_features is not None and not tracing() and x.shape[-1] != self.n_features:
            raise ValueError(f"x must have {self.n_features} columns, got {x.shape[-1]}")
        return x.index_select(-1, self.index)

    def extra_repr(self) -> str:
        """The columns, and of how many."""
        of = "" if self.n_features is None else f", n_features={self.n_features}"
        return f"{self.index.tolist()}{of}"
