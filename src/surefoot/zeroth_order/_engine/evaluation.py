"""Evaluating the loss beside the iterate: the scalars c of one micro-batch, one a direction.

An evaluation is a function of (losses, directions) that returns a `Difference` for each direction of the
step. Here are those that call the closure once a point; another way to evaluate (both signs in one forward,
say) is another such function.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from surefoot.errors import warn
from surefoot.zeroth_order._engine import checks
from surefoot.zeroth_order._engine.directions import Directions
from surefoot.zeroth_order._engine.prefix_once import PrefixOnce
from surefoot.zeroth_order._engine.same_draws import SameDraws
from surefoot.zeroth_order._engine.settings import Settings

Closure = Callable[[], Any]


class Difference(NamedTuple):
    """Two losses and c: F+ and F- (or what F+ is compared with), and their difference over the distance."""

    plus: float
    minus: float
    c: float


class Losses:
    """Calls a closure for its loss, without gradients, and puts the iterate back if it raises.

    Parameters
    ----------
    undo
        What brings the iterate back into the weights: whoever handles the error of a closure then finds
        it there, not a perturbation.
    model
        The module, where it is known: its statistics count one forward an estimate.
    prefix
        Leaves out frozen first blocks in all evaluations of an estimate but the first.
    value
        Of what a closure returns: one number, or one an example.
    """

    def __init__(
        self,
        undo: Callable[[], None],
        model: nn.Module | None = None,
        prefix: PrefixOnce | None = None,
        value: Callable[[Any], Any] = checks.loss_value,
    ) -> None:
        self.undo, self.model, self.value = undo, model, value
        self.prefix = PrefixOnce(None, []) if prefix is None else prefix
        self.needs_grad = False
        self.same: SameDraws | None = None

    @contextlib.contextmanager
    def together(self, closure: Closure) -> Iterator[SameDraws]:
        """All evaluations in here draw the same random numbers."""
        before, self.same = self.same, SameDraws(self.model, closure)
        self.prefix.forget()
        try:
            yield self.same
        finally:
            self.same = before
            self.prefix.forget()

    def __call__(self, closure: Closure) -> Any:
        """The loss as a double; of a private run those of all examples.

        Raises
        ------
        ValueError
            If the closure does not return one number.
        """
        try:
            return self._loss(closure)
        except BaseException:
            self.undo()
            raise

    def afresh(self, closure: Closure) -> None:
        """As if nothing had been evaluated in this estimate."""
        self.prefix.forget()
        if self.same is not None:
            self.same.undo()
            self.same = SameDraws(self.model, closure)

    def raw(self, closure: Closure) -> Any:
        """What a closure returns, without gradients; an error leaves the iterate to whoever calls."""
        with torch.no_grad():
            return closure() if self.same is None else self.same(closure)

    def _loss(self, closure: Closure) -> Any:
        once = closure if self.same is None else functools.partial(self.same, closure)
        if self.needs_grad:
            with torch.enable_grad():
                return self.value(once())
        try:
            with torch.no_grad():
                if self.same is None:
                    return self.value(once())
                return self.prefix.evaluate(
                    lambda: self.value(once()),
                    lambda: self.same is not None and not self.same.drew,
                )
        except RuntimeError as error:
            if "does not require grad" not in str(error):
                raise
        self.needs_grad = True
        self.prefix.refused = True
        warn(
            "the closure calls backward(); zeroth-order steps use no gradients: leave it out to save "
            "the memory that this optimiser is for",
        )
        return self._loss(closure)


Evaluation = Callable[[Callable[[], float], Directions], list[Difference]]


def eps_of(directions: Directions) -> float:
    """The eps that all groups share.

    Raises
    ------
    ValueError
        If they do not share one.
    """
    eps: float = directions.groups[0]["eps"]
    if any(g["eps"] != eps for g in directions.groups):
        raise ValueError("eps must be the same in all groups: one difference serves them all")
    return eps


def central(
    loss: Callable[[], float], directions: Directions, i: int, s: float = 1.0
) -> Difference:
    """(F(X + s eps Z) - F(X - s eps Z)) / (2 s eps) of direction i."""
    eps = eps_of(directions)
    directions.place(i, s)
    plus = loss()
    directions.place(i, -s)
    minus = loss()
    return Difference(plus, minus, (plus - minus) / (2 * s * eps))


Points = list[tuple[int, float]]


def points_of(settings: Settings) -> Points:
    """(direction, sign) of every loss of an estimate, in the order in which one forward holds them."""
    q = settings.num_directions
    if settings.one_sided:
        return [(0, 0.0), *((i, 1.0) for i in range(q))]
    if settings.leave_one_out:
        return [(i, 1.0) for i in range(q)]
    return [(i, s) for i in range(q) for s in (1.0, -1.0)]


def from_losses(losses: list[float], eps: float, settings: Settings) -> list[Difference]:
    """What the evaluations below make of the losses at `points_of`."""
    if settings.one_sided:
        base = losses[0]
        return [Difference(f, base, (f - base) / eps) for f in losses[1:]]
    if settings.leave_one_out:
        return _against_others(losses, eps)
    pairs = zip(losses[::2], losses[1::2], strict=True)
    return [Difference(a, b, (a - b) / (2 * eps)) for a, b in pairs]


def two_sided(loss: Callable[[], float], directions: Directions) -> list[Difference]:
    """The paper's: two forwards a direction."""
    return [central(loss, directions, i) for i in range(directions.settings.num_directions)]


def one_sided(loss: Callable[[], float], directions: Directions) -> list[Difference]:
    """Against the loss at the iterate: one forward a direction, and one for all."""
    eps = eps_of(directions)
    directions.release()
    base, found = loss(), []
    for i in range(directions.settings.num_directions):
        directions.place(i, 1.0)
        plus = loss()
        found.append(Difference(plus, base, (plus - base) / eps))
    return found


def leave_one_out(loss: Callable[[], float], directions: Directions) -> list[Difference]:
    """Each loss against the mean of the others': one forward a direction, and none for a baseline."""
    eps, losses = eps_of(directions), []
    for i in range(directions.settings.num_directions):
        directions.place(i, 1.0)
        losses.append(loss())
    return _against_others(losses, eps)


def _against_others(losses: list[float], eps: float) -> list[Difference]:
    total = sum(losses)
    others = [(total - each) / (len(losses) - 1) for each in losses]
    return [Difference(f, o, (f - o) / eps) for f, o in zip(losses, others, strict=True)]


def normalized(found: list[Difference], eps: float) -> list[Difference]:
    """The same with c in units of the spread of the losses."""
    spread = float(np.std([f.plus for f in found]))
    return [Difference(a, b, c * eps / spread if spread else 0.0) for a, b, c in found]
