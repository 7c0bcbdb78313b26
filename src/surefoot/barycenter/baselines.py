"""What the paper compares with, behind the same loop: automatic gradients, momentum, cyclic steps.

The gradient is that of the same objective, by torch autograd through the eigenvalues of C B C; the
move is the Bures exponential B + V + L V, L from the Lyapunov equation L B + B L = V. In exact
arithmetic, and here to rounding, the plain variant is `eggd`: what fails in the authors' "Auto GD" is its
float32, its matrix exponential and its factors, not automatic differentiation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from surefoot.barycenter._solver.checks import lost
from surefoot.barycenter._solver.descent import Stepped, promised
from surefoot.barycenter._solver.problem import Point, Problem, moved, put, take
from surefoot.barycenter._spectral.closed_forms import Inputs

MOMENTUM = 0.55


def upsilon_by_autograd(inputs: Inputs, B: Float64[Tensor, "... d d"]) -> Float64[Tensor, "..."]:
    """Upsilon as a graph that autograd can walk; no formula for its gradient is used."""
    w: Tensor = torch.linalg.eigvalsh(inputs.root @ B @ inputs.root)
    r = w.clamp(min=torch.finfo(B.dtype).tiny)
    trace: Tensor = B.diagonal(dim1=-2, dim2=-1).sum(dim=-1)
    if inputs.balanced:
        return trace + inputs.constant - 2 * r.sqrt().sum(dim=-1)
    tau = inputs.tau[..., None]
    s = (r * (r + 2 * tau)).sqrt()
    value = trace - (r + s).sum(dim=-1) / 2 + inputs.constant
    return value - inputs.tau / 2 * torch.log1p((r + s) / tau).sum(dim=-1)


def euclidean_gradient(
    problem: Problem, B: Float64[Tensor, "b d d"], weights: Float64[Tensor, "b n"]
) -> Float64[Tensor, "b d d"]:
    """d/dB of 1/2 sum weights_i Upsilon_i by autograd."""
    with torch.enable_grad():
        X = B.clone().requires_grad_()
        value = (weights * upsilon_by_autograd(problem.inputs, X[:, None])).sum() / 2
        (gradient,) = torch.autograd.grad(value, X)
    return (gradient + gradient.mT) / 2


def lyapunov(B: Float64[Tensor, "b d d"], V: Float64[Tensor, "b d d"]) -> Float64[Tensor, "b d d"]:
    """L with L B + B L = V, for positive definite B."""
    w, Q = torch.linalg.eigh(B)
    L: Tensor = Q @ ((Q.mT @ V @ Q) / (w[..., :, None] + w[..., None, :])) @ Q.mT
    return L


def exponential(
    B: Float64[Tensor, "b d d"], V: Float64[Tensor, "b d d"]
) -> Float64[Tensor, "b d d"]:
    """The Bures exponential of the tangent V at B: B + V + L B L."""
    L = lyapunov(B, V)
    out = B + V + L @ B @ L
    return (out + out.mT) / 2


@dataclass(frozen=True)
class Velocity:
    """The last tangent, and which input is next."""

    V: Float64[Tensor, "b d d"]
    turn: Int64[Tensor, "b"]


@dataclass(frozen=True)
class Autograd:
    """Gradient descent by autograd; with momentum (V <- m V - eta grad), cyclic (one input a step)."""

    eta: float
    momentum: float = 0.0
    cyclic: bool = False

    batched: ClassVar[bool] = True

    @property
    def descends(self) -> bool:
        """Only the plain variant is a gradient step."""
        return self.momentum == 0 and not self.cyclic

    @property
    def geodesic(self) -> bool:
        """As above."""
        return self.descends

    def first_memory(self, problem: Problem, point: Point) -> Velocity:
        """At rest."""
        turn = torch.zeros(len(point.F), dtype=torch.int64, device=point.F.device)
        return Velocity(torch.zeros_like(point.B), turn)

    @property
    def name(self) -> str:
        """As `method` calls it."""
        return "autograd" + "_momentum" * bool(self.momentum) + "_cyclic" * self.cyclic

    def step(self, problem: Problem, point: Point, memory: Velocity, fresh: bool) -> Stepped:
        """One step."""
        weights = point.p
        if self.cyclic:
            weights = torch.zeros_like(point.p).scatter(1, memory.turn[:, None], 1.0)
        E = euclidean_gradient(problem, point.B, weights)
        # The Bures gradient of F with Euclidean gradient E = G/2 is 2 (E B + B E) = G B + B G.
        V = self.momentum * memory.V - self.eta * 2 * (E @ point.B + point.B @ E)
        B = exponential(point.B, V)
        if not bool(torch.isfinite(B).all()):
            raise lost(self.name)
        new = problem.at(B, point.next_mean, None if fresh else point.temperature)
        eta = torch.full_like(point.F, self.eta)
        ceiling = promised(point, eta) if self.descends else torch.full_like(point.F, torch.inf)
        turn = (memory.turn + 1) % point.p.shape[-1]
        return Stepped(new, eta, ceiling, Velocity(V, turn))


@dataclass(frozen=True)
class Adaptive:
    """`eggd` that rejects a step which raises F and multiplies eta by 0.8 (authors' code)."""

    eta: float

    descends: ClassVar[bool] = True
    geodesic: ClassVar[bool] = True
    batched: ClassVar[bool] = True

    def first_memory(self, problem: Problem, point: Point) -> Tensor:
        """The current eta of every problem."""
        return torch.full_like(point.F, self.eta)

    def step(self, problem: Problem, point: Point, memory: Tensor, fresh: bool) -> Stepped:
        """A rejected step stays where it is."""
        temperature = None if fresh else point.temperature
        new = problem.at(moved(point.B, point.G, memory), point.next_mean, temperature)
        # A rise within rounding is none: rejecting it would shrink eta for ever near the optimum.
        slack = 1e-15 * point.B.diagonal(dim1=-2, dim2=-1).sum(dim=-1)
        worse = problem.objective(new.upsilon, point.temperature) > point.F + slack
        eta = torch.where(worse, torch.zeros_like(memory), memory)
        if bool(worse.any()):
            stay = problem.at(moved(point.B, point.G, eta), point.next_mean, temperature)
            new = stay if bool(worse.all()) else _where(worse, stay, new)
        return Stepped(new, eta, promised(point, eta), torch.where(worse, 0.8 * memory, memory))


def _where(mask: Tensor, x: Point, y: Point) -> Point:
    at = mask.nonzero()[:, 0]
    return put(y, at, take(x, at))
