"""From one problem to its `Solution`; what nobody asked for is computed when somebody does."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from surefoot.barycenter._chord.block import Matrix, Stack, adjoint, parts_of
from surefoot.barycenter._chord.couplings import Couplings, dot, hermitian_part, spectra
from surefoot.barycenter._chord.descent import End, Spot, Steps, descend
from surefoot.barycenter._chord.rounding import moved_by_rounding
from surefoot.barycenter._solver.descent import Eggd
from surefoot.barycenter._solver.history import History, Row
from surefoot.barycenter._solver.settings import Settings
from surefoot.barycenter._solver.solution import Solution
from surefoot.barycenter.bounds import gap_of, linear_rate


@dataclass
class Ends:
    """The extreme eigenvalues of the inputs of positive weight."""

    covs: Stack
    weights: Float[np.ndarray, " n"]

    @cached_property
    def spectra(self) -> Float[np.ndarray, "n d"]:
        """The eigenvalues of every input."""
        return spectra(self.covs, parts_of(self.covs))

    @cached_property
    def both(self) -> tuple[float, float]:
        """Alpha and beta; alpha is 0 where an input is singular to rounding."""
        w = self.spectra[self.weights > 0]
        low, high = float(w[:, 0].min()), float(w[:, -1].max())
        return max(low, 0.0), high


def solve(
    covs: Stack, weights: Float[np.ndarray, " n"], tau: float, temperature: float,
    mean: Tensor | None, offset: Float[np.ndarray, " n"] | None, starts: list[tuple[str, Matrix]],
    how: Settings, *, symmetric: bool,
) -> Solution:  # fmt: skip
    """The best of the descents from `starts`.

    `mean` is the barycenter's, `offset` what the means add to each Upsilon.
    Raises Unsuited where rounding makes inputs or points singular.
    """
    ends = Ends(covs, weights)
    known = ends.spectra if how.record or how.optimality_gap else None
    shift = 0.0 if offset is None else float(weights @ offset) / 2
    best: tuple[End, list[tuple[int, Spot]], str] | None = None
    steps = Steps(how.rule.eta if isinstance(how.rule, Eggd) else None, math.isinf(tau))
    for name, B in starts:
        couplings = Couplings(
            covs, weights, tau, temperature, symmetric=symmetric, spectra=known,
            cautious=how.record,
        )  # fmt: skip
        path: list[tuple[int, Spot]] = []
        end = descend(
            couplings, B, steps, tol=how.tol, max_iter=how.max_iter,
            goal=_goal(how), path=path if how.record else None,
        )  # fmt: skip
        known = couplings.spectra
        if best is None or end.spot.F < best[0].spot.F:
            best = end, path, name
    assert best is not None
    end, path, name = best
    return _solution(end, path, name, ends, mean, shift, offset, how, symmetric=symmetric)


def _goal(how: Settings) -> Callable[[float], float]:
    """How far the maps may be off: F to rounding for a record, the maps to rounding for constant steps."""
    if isinstance(how.rule, Eggd):
        return lambda residual: 3e-13
    if how.record:
        return lambda residual: max(3e-13, 2e-6 * residual * residual)
    return lambda residual: max(0.002 * residual, 0.05 * how.tol)


def gap(spot: Spot, ends: tuple[float, float], tau: float, off: float) -> float:
    """G5 at a point whose G is known to within off I."""
    B, G = spot.B, spot.G
    g, b = np.linalg.eigvalsh(np.stack([G, B]))
    return gap_of(g, dot(G, B), float(b[-1]), spot.trace, *ends, tau, off=off)


def _rows(
    path: list[tuple[int, Spot]], ends: tuple[float, float], tau: float, shift: float, free: bool
) -> list[Row]:
    rows = []
    for k, at in path:
        F, w = at.F + shift, np.linalg.eigvalsh(at.B)
        proved = math.nan if free else gap(at, ends, tau, at.error)
        columns = [
            F,
            math.sqrt(at.grad2),
            at.eta,
            F,
            float(w[0]),
            float(w[-1]),
            proved,
            at.rounding,
        ]
        rows.append((k, [0], [columns]))
    return rows


def _solution(
    end: End, path: list[tuple[int, Spot]], start: str, ends: Ends, mean: Any, shift: float, offset: Any,
    how: Settings, *, symmetric: bool,
) -> Solution:  # fmt: skip
    at, spot = end.couplings, end.spot
    tau, temperature, free = at.tau, at.temperature, at.free
    # F without the means is never negative but by rounding.
    B, F = spot.B, max(spot.F, 0.0) + shift
    upsilon = at.upsilon().clip(min=0)
    if offset is not None:
        upsilon += offset
    proved = math.nan
    if how.optimality_gap and not free:
        proved = gap(spot, ends.both, tau, end.bound)

    def rate() -> Tensor:
        known = how.optimality_gap and not free and ends.both[0] > 0
        return _number(linear_rate(*ends.both, tau) if known else math.nan)

    history = None
    if how.record:
        a, b = (_number(x) for x in ends.both)
        history = History(
            a, b, _number(tau), free, pending=lambda: _rows(path, ends.both, tau, shift, free)
        )
    # Beside what the chord steps left, which is in it already.
    residual = spot.residual + moved_by_rounding(at, B, how.tol)
    weights, steps = at.p, end.steps
    converged = end.converged and residual <= how.tol
    # What is computed later speaks of the inputs as they are now, whatever the caller does to them. The
    # couplings end here, and one of their buffers holds the copy; no closure may hold the others.
    covs = at.N
    covs[:] = at.covs
    return Solution(
        cov=torch.from_numpy(B[None]), mean=mean, weights=torch.from_numpy(weights[None]),
        upsilon=torch.from_numpy(upsilon[None]), steps=torch.from_numpy(np.array([steps])),
        converged=torch.from_numpy(np.array([converged])), gap=_number(proved), rate=rate,
        # -expm1(-2 L / T) is 1 - sum lam exp(-Upsilon / T), without underflow.
        value=_number(-temperature / 2 * math.expm1(-2 * F / temperature) if free else F),
        residual=_number(residual), temperature=_number(temperature),
        lowest=lambda: _number(float(np.linalg.eigvalsh(B)[0])), rank_deficient=False,
        relax=lambda: torch.from_numpy(relaxed(covs, weights, tau, B, symmetric))[None],
        stretch=lambda: torch.from_numpy(stretch(covs, weights, tau, B, symmetric))[None],
        history=history,
        facts=lambda: [
            how.facts(
                tau=tau, free=free, mass_tau=temperature, initial=start, steps=steps,
                converged=converged, rank_deficient=False,
            )
        ],
    )  # fmt: skip


def _based(covs: Stack, weights: Any, tau: float, B: Matrix, symmetric: bool) -> Couplings:
    # The constant of Upsilon is not asked for here: any numbers will do.
    at = Couplings(
        covs, weights, tau, math.inf, symmetric=symmetric, spectra=np.ones(covs.shape[:2])
    )
    at.base(B)
    return at


def relaxed(covs: Stack, weights: Any, tau: float, B: Matrix, symmetric: bool) -> Stack:
    """Sigma_x = S B S of every input: L^-H Y^H diag(s) Y L^-1 at the base B."""
    if math.isinf(tau):
        return hermitian_part(covs)
    at = _based(covs, weights, tau, B, symmetric)
    rows = np.sqrt(at.s)[:, :, None] * (at.Y @ at.inverse)
    return hermitian_part(adjoint(rows) @ rows)


def stretch(
    covs: Stack, weights: Any, tau: float, B: Matrix, symmetric: bool
) -> Float[np.ndarray, " n"]:
    """The largest eigenvalue of every map S = L^-H Y^H Y L^-1."""
    at = _based(covs, weights, tau, B, symmetric)
    rows = at.Y @ at.inverse
    return np.asarray(np.linalg.eigvalsh(rows @ adjoint(rows))[:, -1])


def _number(x: float) -> Tensor:
    return torch.from_numpy(np.array([x]))
