"""From a request to a solution: reduction to the joint range, starts, descent, bounds at its end."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from surefoot.barycenter._chord.couplings import Unsuited
from surefoot.barycenter._chord.hermitian import singular
from surefoot.barycenter._chord.problem import by_products, suits
from surefoot.barycenter._solver.checks import as_covariances, check_spectrum
from surefoot.barycenter._solver.descent import Outcome, descend
from surefoot.barycenter._solver.history import History
from surefoot.barycenter._solver.initial import FREE_STARTS, flattened, initial
from surefoot.barycenter._solver.means import mean_maps, weighted_mean
from surefoot.barycenter._solver.problem import Means, Problem, put, take
from surefoot.barycenter._solver.request import Request
from surefoot.barycenter._solver.rounding import moved_by_rounding
from surefoot.barycenter._solver.settings import Settings
from surefoot.barycenter._solver.solution import Solution
from surefoot.barycenter._spectral.closed_forms import Evaluation, Inputs, spectrum
from surefoot.barycenter._spectral.matmul import MatmulInputs
from surefoot.barycenter.bounds import gap_bound, linear_rate
from surefoot.errors import warn
from surefoot.record import Fact


@dataclass(frozen=True)
class Run:
    """One descent; `score` is what several starts are compared by."""

    score: Float64[Tensor, "b"]
    start: Int64[Tensor, "b"]
    """Which of the starts it began from."""
    outcome: Outcome
    history: History | None

    def better(self, other: Run) -> Run:
        """The better of two runs, problem by problem."""
        win = (other.score < self.score).nonzero()[:, 0]
        history = self.history
        if history is not None and other.history is not None:
            history = history.merged(other.history, set(win.tolist()))
        return Run(
            torch.minimum(self.score, other.score),
            put(self.start, win, other.start[win]),
            put(self.outcome, win, take(other.outcome, win)),
            history,
        )


ALONE = 80
"""Problems of a batch with n d of at least this are solved one by one."""
SQRTS: dict[str, type[Inputs]] = {"eigh": Inputs, "newton-schulz": MatmulInputs}


def solve(request: Request, how: Settings) -> Solution:
    """Solve a batch: by matrix products where that suits, else by an eigendecomposition a step."""
    count, n, d = request.covs.shape[:3]
    if not isinstance(how.init, str | None):
        how = replace(how, init=flattened(how.init, request.shape, count))
    # Small problems of a batch are quicker together.
    if suits(request, how) and (count == 1 or n * d >= ALONE or request.covs.is_complex()):
        return _each(request, how, _by_products)
    return _by_eigh(request.symmetrised(), how)


def _by_products(request: Request, how: Settings) -> Solution:
    try:
        return by_products(request, how)
    except Unsuited:
        if request.covs.is_complex():
            raise singular() from None
        return _by_eigh(request.symmetrised(), how)


def _by_eigh(request: Request, how: Settings) -> Solution:
    """Together where possible, one by one where a problem lacks full joint range."""
    _, inside = request.joint_range()
    together = bool(inside.all()) and how.rule.batched
    return _solve(request, how) if together else _each(request, how, _solve)


def _each(
    request: Request, how: Settings, one: Callable[[Request, Settings], Solution]
) -> Solution:
    count = len(request.covs)
    if count == 1:
        return one(request, how)
    starts = [how.init] * count
    if not isinstance(how.init, str | None):
        if request.covs.is_complex():
            full = np.asarray(how.init)
            starts = list(np.broadcast_to(full, (count, *full.shape[-2:])))
        else:
            init = as_covariances(how.init, "init")
            starts = list(init.expand(count, *init.shape[-2:])[:, None])
    return Solution.joined(
        [one(request.one(i), replace(how, init=start)) for i, start in enumerate(starts)]
    )


def _solve(request: Request, how: Settings) -> Solution:
    covs, Q, init = request.covs, None, how.init
    V, inside = request.joint_range()
    if not bool(inside.all()):
        Q = V[0][:, inside[0]]
        if not Q.shape[-1]:
            check_spectrum(torch.linalg.eigvalsh(covs), "covs")
            raise ValueError("covs must hold an input of positive weight that is not 0")
        covs = Q.mT @ covs @ Q
        if not isinstance(init, str | None):
            init = Q.mT @ as_covariances(init, "init") @ Q
    sqrt = how.sqrt
    inputs = SQRTS[sqrt].of(covs, request.tau[:, None], keep=False)
    if sqrt != "eigh" and bool(inputs.singular.any()):
        warn(
            "sqrt='newton-schulz' needs inputs of full rank: eigh is used instead; add a ridge",
        )
        sqrt = "eigh"
        inputs = Inputs.of(covs, request.tau[:, None], keep=False)
    means, mean = None, None
    if request.means is not None:
        means = Means(request.means, mean_maps(request.covs, request.tau))
        mean = weighted_mean(means.W, means.a, request.weights)
    problem = Problem(inputs, request.weights, request.free, request.mass_tau, means)
    low, high = problem.extremes()
    best: Run | None = None
    starts = (FREE_STARTS if request.free else ("euclid",)) if init is None else (init,)
    for i, start in enumerate(starts):
        B = initial(start, covs, request.weights, request.tau)
        history = History(low, high, request.tau, request.free) if how.record else None
        found = descend(
            problem, problem.at(B, mean), how.rule, max_iter=how.max_iter, tol=how.tol,
            watch=history.watch if history else _nothing,
        )  # fmt: skip
        # Objectives at different temperatures cannot be compared.
        score = found.point.F
        if problem.mass_tau is None:
            score = problem.median(found.point.upsilon)
        run = Run(score, torch.full_like(found.steps, i), found, history)
        best = run if best is None else best.better(run)
    assert best is not None
    names = [s if isinstance(s, str) else "array" for s in starts]
    done = replace(how, sqrt=sqrt)
    return _solution(request, problem, covs, best, Q, done, names)


def _facts(
    problem: Problem, run: Run, how: Settings, starts: list[str], deficient: bool
) -> list[dict[str, Fact]]:
    """What was done with each problem."""
    end = run.outcome
    singular = (problem.inputs.singular & (problem.weights > 0)).any(dim=-1)
    return [
        how.facts(
            tau=tau, free=problem.free, mass_tau=temperature, initial=starts[start], steps=steps,
            converged=converged, rank_deficient=deficient or flat,
        )
        for tau, temperature, start, steps, converged, flat in zip(
            problem.tau.tolist(), end.point.temperature.tolist(), run.start.tolist(),
            end.steps.tolist(), end.converged.tolist(), singular.tolist(), strict=True,
        )
    ]  # fmt: skip


def _nothing(*args: Any) -> None:
    pass


def _solution(
    request: Request, problem: Problem, covs: Tensor, run: Run, Q: Tensor | None, how: Settings,
    starts: list[str],
) -> Solution:  # fmt: skip
    point = run.outcome.point
    residual = point.residual + moved_by_rounding(covs, problem, point, how.tol)
    converged = run.outcome.converged & (residual <= how.tol)
    run = replace(run, outcome=replace(run.outcome, converged=converged))
    low, high = problem.extremes()
    gap = torch.full_like(point.F, torch.nan)
    if how.optimality_gap and not request.free:
        gap = gap_bound(point.B, point.G, low, high, request.tau)
        gap = torch.where(point.residual.isinf(), torch.inf, gap)

    def rate() -> Tensor:
        if not how.optimality_gap or request.free:
            return torch.full_like(point.F, torch.nan)
        rates = [
            linear_rate(float(a), float(b), float(t)) if float(a) > 0 else math.nan
            for a, b, t in zip(low, high, request.tau, strict=True)
        ]
        return torch.tensor(rates, dtype=point.F.dtype, device=point.F.device)

    value = point.F
    if request.free:
        # -expm1(-2 L / T) is 1 - sum lam exp(-Upsilon / T), without underflow.
        value = -point.temperature / 2 * torch.expm1(-2 * point.F / point.temperature)

    def embed(x: Tensor) -> Tensor:
        return x if Q is None else Q @ x @ Q.mT

    def coupling() -> Evaluation:
        return problem.inputs.evaluate(point.B[:, None])

    return Solution(
        cov=embed(point.B), mean=point.mean, weights=point.p, upsilon=point.upsilon,
        steps=run.outcome.steps, converged=run.outcome.converged, gap=gap, rate=rate, value=value,
        residual=residual, temperature=point.temperature, history=run.history,
        relax=lambda: embed(coupling().relaxed()), stretch=lambda: spectrum(coupling().maps())[..., -1],
        lowest=lambda: spectrum(point.B)[:, 0],
        rank_deficient=Q is not None or bool(problem.inputs.singular.any()),
        facts=lambda: _facts(problem, run, how, starts, Q is not None),
    )  # fmt: skip
