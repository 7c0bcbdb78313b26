"""When copies share a forward: where they can, where it was seen to be the same, and where it is faster."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from surefoot._numerics.checks import check_number
from surefoot.errors import warn
from surefoot.zeroth_order._engine import evaluation as evaluations
from surefoot.zeroth_order._engine.directions import Directions
from surefoot.zeroth_order._engine.evaluation import Difference, Losses, Points
from surefoot.zeroth_order._engine.paired import checking
from surefoot.zeroth_order._engine.paired.copies import DRAWS, NotNow, Unpaired, form_of, rows_of
from surefoot.zeroth_order._engine.paired.forward import PairedForward, single_loss
from surefoot.zeroth_order._engine.paired.head import LabelRows
from surefoot.zeroth_order._engine.paired.plan import planned
from surefoot.zeroth_order._engine.paired.products import low_of
from surefoot.zeroth_order._engine.paired.timing import Choice, clock_of, out_of_memory, size_of

SHORT = "a forward of 2 copies ran out of memory with a batch of this size"
AUTOCAST = (
    "; the closure is in autocast to {}, whose rounding cannot be told from that: leave autocast out of the "
    "closure"
)


class PairedWarning(UserWarning):
    """Copies cannot share a forward; each has its own, as without batch=."""


class Pairing:
    """Evaluates the losses of an estimate in one forward, or in one each.

    Parameters
    ----------
    model
        The module; None where only parameters are known.
    directions, losses
        Of the engine.
    precision
        Of products: "auto", "float32" or "bfloat16".
    copies_at_once
        How many copies a forward holds at most; None: all.

    Attributes
    ----------
    how
        In words, how the last estimate was evaluated.
    autocast
        What the closure's autocast computes in, where the first step saw one.
    choice
        Which way is faster, by size.
    refused
        Why copies can never share a forward of this model; None: they can.
    """

    def __init__(
        self,
        model: nn.Module | None,
        directions: Directions,
        losses: Losses,
        precision: str = "auto",
        copies_at_once: int | None = None,
    ) -> None:
        self.low, self.why_not_low = low_of(precision, model, directions.settings)
        self.precision, self.at_once = precision, copies_at_once
        if copies_at_once is not None:
            self.at_once = check_number("copies_at_once", copies_at_once, least=1, whole=True)
        self.model, self.directions, self.losses = model, directions, losses
        self.how, self.refused = "", None if model is not None else "it needs the model"
        if self.refused is None and directions.settings.mode != "factored":
            self.refused = "it needs mode 'factored'"
        self.autocast: torch.dtype | None = None
        self.forward: PairedForward | None = None
        self.checked: set[tuple[Any, ...]] = set()
        self.choice = Choice()
        self._planned_for: tuple[Any, ...] = ()
        self._short: int | None = None
        self._told: set[str] = set()

    def __call__(
        self, closure: Callable[[Any], Any], batch: Any, paired: bool | str,
        apart: Callable[[Callable[[], Any]], list[Difference]],
    ) -> list[Difference]:  # fmt: skip
        """The differences of an estimate.

        Parameters
        ----------
        closure, batch
            Of the loss.
        paired
            True, False or "auto".
        apart
            Evaluates a closure without arguments, a forward for each loss.

        Raises
        ------
        ValueError
            With True, where copies cannot share a forward.
        """
        once = functools.partial(self.once, closure, batch)
        if paired is False:
            self.how = "two forwards: paired=False"
            return apart(once)
        why = self.refused
        if why is None:
            try:
                return self._evaluate(closure, batch, paired, once, apart)
            except Unpaired as error:
                why = str(error)
                if not isinstance(error, NotNow):
                    if self.autocast is not None:
                        why += AUTOCAST.format(str(self.autocast).removeprefix("torch."))
                    self.refused = why
            except Exception as error:
                if paired is True:
                    self.losses.undo()
                    raise
                if out_of_memory(error):
                    self._take_less(batch)
                    self.losses.undo()
                    self.losses.afresh(once)
                    return self(closure, batch, paired, apart)
                # Is it the closure's own? Then it raises once more.
                self.losses.afresh(once)
                found = apart(once)
                why = f"a forward of several copies raises {type(error).__name__}: {error}"
                self.refused = why
                self._tell(why)
                self.how = f"two forwards: {why}"
                return found
        if paired is True:
            self.losses.undo()
            raise ValueError(
                f'paired=True is impossible here: {why}; with paired="auto" each copy has a '
                "forward of its own"
            )
        self._tell(why)
        self.losses.afresh(once)
        self.how = f"two forwards: {why}"
        return apart(once)

    @staticmethod
    def once(closure: Callable[[Any], Any], batch: Any) -> Any:
        """The loss of one copy."""
        found = closure(batch)
        try:
            rows = rows_of(batch)
        except Unpaired:
            return found
        return single_loss(found, rows)

    def _take_less(self, batch: Any) -> None:
        """Fewer copies a forward from now on, or none together at this size."""
        points = evaluations.points_of(self.directions.settings)
        copies = len(self._portions(points)[0])
        if copies > 2:
            self.at_once = max(2, copies // 2)
            return
        self._short = size_of(batch, len(points), rows_of(batch))
        self._tell(SHORT)

    def __getstate__(self) -> dict[str, Any]:
        # A plan finds parameters by identity, which a copy does not share.
        return self.__dict__ | {"forward": None, "checked": set()}

    def forget(self) -> None:
        """Somebody writes weights."""
        if self.forward is not None:
            self.forward.weights.forget()

    def _tell(self, why: str) -> None:
        if why not in self._told:
            self._told.add(why)
            warn(f"each copy has a forward of its own, as without batch=: {why}", PairedWarning)

    # -- evaluating ---------------------------------------------------------------------------------------

    def _evaluate(
        self, closure: Callable[[Any], Any], batch: Any, paired: bool | str, once: Callable[[], Any],
        apart: Callable[[Callable[[], Any]], list[Difference]],
    ) -> list[Difference]:  # fmt: skip
        rows = rows_of(batch)
        size = size_of(batch, len(evaluations.points_of(self.directions.settings)), rows)
        if self._short is not None and size >= self._short and paired is not True:
            self.how = f"two forwards: {SHORT}"
            return apart(once)
        first = self.forward is None
        why_not = self.ready(closure, batch, rows, once)
        if why_not:
            self.how = f"two forwards: {why_not}"
            return apart(once)
        assert self.forward is not None
        other = self.low is not None or self.forward.staged
        if paired is True or other or (first and size not in self.choice.faster):
            # Products in fewer bits are another arithmetic than a forward each: time has no say.
            return self._together(closure, batch, rows, once)
        if size not in self.choice.faster:
            return self._timed(size, closure, batch, rows, once, apart)
        if not self.choice.faster[size]:
            self.how = "two forwards: faster here"
            return apart(once)
        return self._together(closure, batch, rows, once)

    def ready(
        self, closure: Callable[[Any], Any], batch: Any, rows: int, once: Callable[[], Any]
    ) -> str:
        """Make the forward of several copies, and look whether it is the same; why not, or nothing.

        Parameters
        ----------
        closure, batch, rows
            As in a step.
        once
            The closure of one copy.

        Raises
        ------
        Unpaired
            If copies can never share a forward.
        """
        assert self.model is not None
        passing = checking.normalises(self.model)
        if passing:
            raise NotNow(passing)
        moving = [x for x in self.directions.tensors if not x.frozen]
        # A tensor may be frozen, or have another rank, from some step on.
        key = tuple((x.index, x.rank, x.storage) for x in moving)
        if self.forward is None or key != self._planned_for:
            self.directions.release()
            self._planned_for, self.checked = key, set()
            plan = planned(self.model, moving, lambda: self.losses(once))
            if self.losses.needs_grad:
                raise Unpaired("the closure calls backward()")
            self.forward = PairedForward(self.directions, plan, self.model, self.low)
        # A head that is asked for some rows only is looked at where there are such rows.
        few = bool(self.forward.heads) and LabelRows.are_few(batch)
        points = evaluations.points_of(self.directions.settings)
        form = (*form_of(batch, len(points), rows), few)
        if form not in self.checked:
            if not checking.check(self.forward, closure, batch, rows, self.losses, once):
                # No loss could tell: it is asked again at the next step.
                return "the losses were not finite"
            # What was left out by the check is looked at no more.
            few = few and bool(self.forward.heads)
            self.checked |= {form, (*form[:-1], few)}
            self.losses.afresh(once)
        return ""

    def _together(
        self, closure: Callable[[Any], Any], batch: Any, rows: int, once: Callable[[], Any]
    ) -> list[Difference]:
        assert self.forward is not None
        settings = self.directions.settings
        points = evaluations.points_of(settings)
        found: list[float] = []
        for some in self._portions(points):
            found += self.forward(closure, batch, rows, some, self.losses.raw)
        if self.losses.same is not None and self.losses.same.drew:
            raise NotNow(DRAWS)
        self.how = f"one forward of {len(self._portions(points)[0])} copies, {self.arithmetic()}"
        return evaluations.from_losses(found, evaluations.eps_of(self.directions), settings)

    def _portions(self, points: Points) -> list[Points]:
        """What one forward holds: pairs are not parted."""
        settings = self.directions.settings
        pairs = not (settings.one_sided or settings.leave_one_out)
        size = len(points) if self.at_once is None else min(self.at_once, len(points))
        size = max(2, size - size % 2) if pairs else size
        return [points[at : at + size] for at in range(0, len(points), size)]

    def arithmetic(self) -> str:
        """What products are computed in, in words."""
        if self.low is not None:
            return f"products in {str(self.low).removeprefix('torch.')} as mean and difference"
        return self.why_not_low or "products as exact as the weights"

    def _timed(
        self, size: int, closure: Callable[[Any], Any], batch: Any, rows: int,
        once: Callable[[], Any], apart: Callable[[Callable[[], Any]], list[Difference]],
    ) -> list[Difference]:  # fmt: skip
        """Both ways, and the faster one from then on."""
        now = clock_of(self.directions.tensors)
        start = now()
        apart(once)
        middle = now()
        # What is held was drawn for the forwards apart: the same is asked of those together.
        self.directions.release()
        begun = now()
        self.losses.afresh(once)
        found = self._together(closure, batch, rows, once)
        self.choice.add(size, middle - start, now() - begun)
        return found
