"""Random numbers that are a function of (seed, purpose, index, tensor) and of nothing else.

Every draw has a generator of its own, seeded by a hash, so a direction can be drawn again at any time,
on any process, without a state; torch's global generator is never touched. U and V come from different
purposes: drawn in turn from one generator, as the authors' code does, the update would not follow the
perturbation.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from surefoot._numerics.seeds import hash64


class CounterRNG:
    """The random numbers of one optimiser: N(0, 1) in float32, made on the CPU so that devices agree."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._generator = torch.Generator()

    def __getstate__(self) -> dict[str, Any]:
        # It is seeded anew before each draw: its state says nothing.
        return {"seed": self.seed}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["seed"])  # type: ignore[misc]

    def normal(
        self, purpose: str, index: int, tensor: int, shape: tuple[int, ...]
    ) -> Float[Tensor, "..."]:
        """The draw of that name: always the same numbers for the same shape."""
        self._generator.manual_seed(hash64(self.seed, purpose, index, tensor))
        return torch.randn(shape, generator=self._generator, dtype=torch.float32)

    def factor(
        self, period: int, tensor: int, n: int, rank: int, orthogonal: bool
    ) -> Float[Tensor, "n rank"]:
        """V of a period: Gaussian, or Haar-distributed with V^T V = n I.

        Parameters
        ----------
        period, tensor
            Which V: of which period, of which trained tensor.
        n, rank
            Its shape.
        orthogonal
            Orthogonalise the Gaussian's columns, in double: they are orthogonal to 1e-7 after the cast.
        """
        v = self.normal("V", period, tensor, (n, rank))
        if not orthogonal:
            return v
        q, r = torch.linalg.qr(v.double())
        found: Tensor = (q * torch.sign(torch.diagonal(r)) * n**0.5).float()
        return found
