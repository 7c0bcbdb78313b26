"""Hybrid descent: an inner Wasserstein barycenter of the relaxed inputs, an outer refresh of these."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from surefoot.barycenter._solver.descent import Stepped, promised
from surefoot.barycenter._solver.problem import Point, Problem, moved

INNER_STOP = 1e-6


@dataclass(frozen=True)
class Hybrid:
    """Outer: Sigma_x,i at the current B. Inner: B <- M B M, M = (1-eta) I + eta sum p_i (B^-1 # Sigma_x,i).

    At most `inner` steps, fewer where the inner objective changes by less than 1e-6 of itself. With
    one inner step the iterates are those of `eggd` (the relaxed inputs do not move to first order).
    From the authors' code; their inner tolerance is absolute.
    """

    eta: float
    inner: int

    descends: ClassVar[bool] = True
    geodesic: ClassVar[bool] = False
    batched: ClassVar[bool] = True

    def first_memory(self, problem: Problem, point: Point) -> None:
        """Nothing to remember."""

    def step(self, problem: Problem, point: Point, memory: None, fresh: bool) -> Stepped:
        """One outer step; the first inner one alone gives the descent that is promised."""
        relaxed = problem.inputs.evaluate(point.B[:, None]).relaxed()
        infinite = torch.full_like(problem.inputs.tau, torch.inf)
        targets = type(problem.inputs).of((relaxed + relaxed.mT) / 2, infinite, keep=False)
        eta = torch.full_like(point.F, self.eta)
        B, last = point.B, torch.full_like(point.F, torch.inf)
        for _ in range(self.inner):
            coupling = targets.evaluate(B[:, None])
            value = (point.p * coupling.upsilon).sum(dim=-1) / 2
            if bool((last - value <= INNER_STOP * value.abs()).all()):
                break
            eye = torch.eye(B.shape[-1], dtype=B.dtype, device=B.device)
            B, last = moved(B, eye - coupling.mean_map(point.p), eta), value
        new = problem.at(B, point.next_mean, None if fresh else point.temperature)
        return Stepped(new, eta, promised(point, eta))
