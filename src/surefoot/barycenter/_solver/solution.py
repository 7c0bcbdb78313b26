"""What any way to a barycenter ends in: tensors with the batch of problems in front."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import torch
from jaxtyping import Bool, Float64, Inexact, Int64
from torch import Tensor

from surefoot.barycenter._solver.history import History
from surefoot.record import Fact

LATER = ("rate", "lowest", "relax", "stretch", "facts")


@dataclass(frozen=True)
class Known:
    """A function that was called already."""

    found: Any

    def __call__(self) -> Any:
        """What came of it."""
        return self.found


@dataclass(frozen=True)
class Solution:
    """See `BarycenterResult`, which shows the same in the caller's kind of array."""

    cov: Inexact[Tensor, "b d d"]
    mean: Float64[Tensor, "b d"] | None
    weights: Float64[Tensor, "b n"]
    upsilon: Float64[Tensor, "b n"]
    steps: Int64[Tensor, "b"]
    converged: Bool[Tensor, "b"]
    gap: Float64[Tensor, "b"]
    rate: Callable[[], Tensor]
    """G4, one number a problem."""
    value: Float64[Tensor, "b"]
    residual: Float64[Tensor, "b"]
    temperature: Float64[Tensor, "b"]
    lowest: Callable[[], Tensor]
    """The smallest eigenvalue of the barycenter on the joint range."""
    rank_deficient: bool
    relax: Callable[[], Tensor]
    """The relaxed inputs."""
    stretch: Callable[[], Tensor]
    """The largest eigenvalue of every optimal map S_i."""
    history: History | None
    facts: Callable[[], list[dict[str, Fact]]]
    """What was done with each problem, for the core's record."""

    def __getstate__(self) -> dict[str, Any]:
        """For pickle: what was left for later is computed, as functions within functions do not travel."""
        state = dict(self.__dict__)
        with torch.no_grad():
            for name in LATER:
                state[name] = Known(state[name]())
        return state

    @classmethod
    def joined(cls, parts: list[Solution]) -> Solution:
        """The solutions of single problems as that of a batch."""
        values: dict[str, Any] = {
            f.name: torch.cat([getattr(p, f.name) for p in parts])
            for f in fields(cls)
            if isinstance(getattr(parts[0], f.name), Tensor)
        }
        histories = [p.history for p in parts if p.history is not None]
        return cls(
            **{"mean": None, **values},
            rank_deficient=any(p.rank_deficient for p in parts),
            rate=lambda: torch.cat([p.rate() for p in parts]),
            lowest=lambda: torch.cat([p.lowest() for p in parts]),
            relax=lambda: torch.cat([p.relax() for p in parts]),
            stretch=lambda: torch.cat([p.stretch() for p in parts]),
            history=History.joined(histories) if histories else None,
            facts=lambda: [fact for p in parts for fact in p.facts()],
        )
