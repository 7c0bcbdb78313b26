"""The part that is trained: a residual adapter behind a frozen encoder."""

from __future__ import annotations

import contextlib

import torch
from jaxtyping import Float
from torch import Tensor, nn

from surefoot._numerics.arguments import checked
from surefoot._numerics.checks import check_number


@checked
class ResidualAdapter(nn.Module):
    """u = z + ReLU(W2 ReLU(W1 z)), without biases (arXiv 2410.07738, the authors' code).

    Parameters
    ----------
    d
        Dimension of the embeddings.
    hidden
        Rows of W1; by default d // 4, at least 1.
    seed
        Of the initial weights, uniform in +-1/sqrt(fan-in) as of `torch.nn.Linear`; None: torch's global
        generator draws them.
    dtype
        Of the weights; by default torch's.

    Attributes
    ----------
    down, up
        The two layers, of weights (hidden, d) and (d, hidden).

    Raises
    ------
    ValueError
        A dimension is not a whole number of at least 1.
    """

    def __init__(
        self,
        d: int,
        hidden: int | None = None,
        *,
        seed: int | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        d = check_number("d", d, least=1, whole=True)
        hidden = max(d // 4, 1) if hidden is None else hidden
        hidden = check_number("hidden", hidden, least=1, whole=True)
        # What torch draws is overwritten where there is a seed: the user's generator stays where it was.
        with contextlib.nullcontext() if seed is None else torch.random.fork_rng(devices=[]):
            self.down = nn.Linear(d, hidden, bias=False, dtype=dtype)
            self.up = nn.Linear(hidden, d, bias=False, dtype=dtype)
        self.relu = nn.ReLU()
        if seed is not None:
            self._draw(torch.Generator().manual_seed(seed))

    def _draw(self, generator: torch.Generator) -> None:
        with torch.no_grad():
            for layer in (self.down, self.up):
                bound = layer.in_features**-0.5
                drawn = torch.rand(
                    layer.weight.shape, generator=generator, dtype=layer.weight.dtype
                )
                layer.weight.copy_((2 * drawn - 1) * bound)

    @property
    def d(self) -> int:
        """Dimension of the embeddings."""
        return self.down.in_features

    def forward(self, z: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
        """The adapted embeddings."""
        added: Tensor = self.relu(self.up(self.relu(self.down(z))))
        return z + added
