"""The descent: exact geodesic gradient descent, its accelerated step, and the loop that all share.

One step of `eggd` is B+ = (I - eta G) B (I - eta G) with G = I - sum p_i S_i, the exponential of
the exact Bures gradient (arXiv 2410.08117; the update and all that is promised of it derived here).
Every step of every method is checked against what it promises while it runs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from surefoot.barycenter._solver.problem import (
    MEDIAN_STEPS,
    Point,
    Problem,
    inner,
    moved,
    put,
    take,
)
from surefoot.barycenter.bounds import keep_promise


@dataclass(frozen=True)
class Stepped:
    """Where a step led; `ceiling` is the most that F may be there, by the method's own claim."""

    point: Point
    eta: Float64[Tensor, "b"]
    ceiling: Float64[Tensor, "b"]
    memory: Any = None
    stalled: bool = False
    """No step of this method leads further down; the run ends."""


class Rule(Protocol):
    """A method: what it remembers, and how it steps.

    `descends`: its steps are promised the descent G1. `geodesic`: they are (I - eta G) B (I - eta G).
    `batched`: it steps all problems of a batch at once. `fresh`: the temperature of the free mass is
    taken anew at the point stepped to.
    """

    @property
    def descends(self) -> bool: ...
    @property
    def geodesic(self) -> bool: ...
    @property
    def batched(self) -> bool: ...

    def first_memory(self, problem: Problem, point: Point) -> Any:
        """The memory before the first step."""

    def step(self, problem: Problem, point: Point, memory: Any, fresh: bool) -> Stepped:
        """One step for every problem of the batch."""


@dataclass(frozen=True)
class Outcome:
    """Where the descent ended, and each problem's number of steps."""

    point: Point
    steps: Int64[Tensor, "b"]
    converged: Tensor


Watch = Callable[[int, Tensor, Point, Tensor, Tensor], None]
"""Called as (k, problems still running, point, eta, reached) at every point, the first included;
`reached` is F at the temperature before the step, which is what G1 speaks of."""


def descend(
    problem: Problem, point: Point, rule: Rule, *, max_iter: int, tol: float, watch: Watch
) -> Outcome:
    """Step until the residual is at most tol; problems that have arrived are stepped no further.

    Raises GuaranteeViolation where a step ends above its own ceiling by more than rounding.
    """
    count = len(point.F)
    device = point.F.device
    running = torch.arange(count, device=device)
    steps = torch.zeros(count, dtype=torch.int64, device=device)
    final, memory = point, rule.first_memory(problem, point)
    eta = torch.full_like(point.F, torch.nan)
    reached, stalled = point.F, False
    for k in range(max_iter + 1):
        watch(k, running, point, eta, reached)
        going = (point.residual > tol) & (not stalled)
        if k == max_iter or not bool(going.all()):
            stop = torch.zeros_like(going) if k == max_iter else going
            final = put(final, running[~stop], take(point, (~stop).nonzero()[:, 0]))
            steps[running[~stop]] = k
            left = stop.nonzero()[:, 0]
            if not len(left):
                break
            running, problem, point = running[left], take(problem, left), take(point, left)
            memory = take(memory, left)
        fresh = problem.free and problem.mass_tau is None and k + 1 < MEDIAN_STEPS
        stepped = rule.step(problem, point, memory, fresh)
        reached = problem.objective(stepped.point.upsilon, point.temperature)
        slack = point.rounding + stepped.point.rounding
        check(reached, stepped.ceiling, slack, k + 1)
        point, eta, memory, stalled = stepped.point, stepped.eta, stepped.memory, stepped.stalled
    return Outcome(final, steps, final.residual <= tol)


def check(
    reached: Float64[Tensor, "b"],
    ceiling: Float64[Tensor, "b"],
    slack: Float64[Tensor, "b"],
    step: int,
) -> None:
    """The step's own promise (G1 for all gradient steps), up to rounding."""
    bad = (reached - ceiling > slack) | reached.isnan()
    if bool(bad.any()):
        i = int(bad.int().argmax())
        keep_promise(float(reached[i]), float(ceiling[i]), float(slack[i]), step)


def promised(point: Point, eta: Float64[Tensor, "b"]) -> Float64[Tensor, "b"]:
    """G1 for a step eta from this point, see `bounds.descent_bound`."""
    return point.F - (eta - eta * eta / 2) * point.grad2


@dataclass(frozen=True)
class Eggd:
    """Exact geodesic gradient descent with a constant step; eta = 1 is the one of the theory."""

    eta: float = 1.0

    descends: ClassVar[bool] = True
    geodesic: ClassVar[bool] = True
    batched: ClassVar[bool] = True

    def first_memory(self, problem: Problem, point: Point) -> None:
        """Nothing to remember."""

    def step(self, problem: Problem, point: Point, memory: None, fresh: bool) -> Stepped:
        """B+ = (I - eta G) B (I - eta G)."""
        eta = torch.full_like(point.F, self.eta)
        temperature = None if fresh else point.temperature
        new = problem.at(moved(point.B, point.G, eta), point.next_mean, temperature)
        return Stepped(new, eta, promised(point, eta))


def step_range(balanced: bool) -> tuple[float, float]:
    """The shortest and the longest Barzilai-Borwein step."""
    return (0.5, 10.0) if balanced else (1.0, 1e6)


DECREASE, INSIDE = 1e-4, 1e-3
"""A step above 1 must take off this share of eta ||G||_B^2 and leave I - eta G above this."""


@dataclass(frozen=True)
class Secant:
    """The last move, for the Barzilai-Borwein step; `count` steps were taken."""

    B: Float64[Tensor, "b d d"]
    G: Float64[Tensor, "b d d"]
    eta: Float64[Tensor, "b"]
    count: Int64[Tensor, "b"]


@dataclass(frozen=True)
class BarzilaiBorwein:
    """`eggd` with a Barzilai-Borwein step, at least the unit step wherever the secant allows it.

    Steps up to 1 are always accepted (G1), longer ones if F decreases by 1e-4 eta ||G||_B^2 and
    I - eta G stays positive; else the step is halved toward 1.
    """

    descends: ClassVar[bool] = True
    geodesic: ClassVar[bool] = True
    batched: ClassVar[bool] = True

    def first_memory(self, problem: Problem, point: Point) -> Secant:
        """The first step is the unit step."""
        none = torch.zeros(len(point.F), dtype=torch.int64, device=point.F.device)
        return Secant(point.B, point.G, torch.ones_like(point.F), none)

    def step(self, problem: Problem, point: Point, memory: Secant, fresh: bool) -> Stepped:
        """One accepted step."""
        eta = self._proposal(problem, point, memory)
        steepest = torch.linalg.eigvalsh(point.G)[:, -1]
        while bool((inside := (eta > 1) & (1 - eta * steepest <= INSIDE)).any()):
            eta = torch.where(inside, (eta / 2).clamp(min=1), eta)
        temperature = None if fresh else point.temperature
        new = problem.at(moved(point.B, point.G, eta), point.next_mean, temperature)
        while True:
            reached = problem.objective(new.upsilon, point.temperature)
            slack = 1e-15 * point.B.diagonal(dim1=-2, dim2=-1).sum(dim=-1)
            enough = reached <= point.F - DECREASE * eta * point.grad2 + slack
            again = (~enough & (eta > 1)).nonzero()[:, 0]
            if not len(again):
                break
            eta = eta.index_copy(0, again, (eta[again] / 2).clamp(min=1))
            part, old = take(problem, again), take(point, again)
            tried = part.at(
                moved(old.B, old.G, eta[again]), old.next_mean, None if fresh else old.temperature
            )
            new = put(new, again, tried)
        after = Secant(point.B, point.G, eta, memory.count + 1)
        return Stepped(new, eta, promised(point, eta), after)

    def _proposal(self, problem: Problem, point: Point, memory: Secant) -> Tensor:
        s, y = -memory.eta[:, None, None] * memory.G, point.G - memory.G
        ss, sy, yy = inner(s, s, memory.B), inner(s, y, memory.B), inner(y, y, memory.B)
        # A minimum with a zero denominator is a step of infinity, which the clamp below takes care of.
        eta = torch.where(memory.count % 2 == 1, ss / sy, sy / yy)
        low, high = step_range(problem.inputs.balanced)
        eta = torch.where((sy > 0) & (yy > 0), eta, torch.ones_like(eta)).clamp(low, high)
        return torch.where(memory.count == 0, torch.ones_like(eta), eta)
