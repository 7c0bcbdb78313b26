"""One forward of several copies: laid out, served, split, and everything put back."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from surefoot.zeroth_order._engine.directions import Directions
from surefoot.zeroth_order._engine.evaluation import Points
from surefoot.zeroth_order._engine.hooks import linear_kind
from surefoot.zeroth_order._engine.paired import serving
from surefoot.zeroth_order._engine.paired.copies import Copies, Unpaired, mapped, repeated
from surefoot.zeroth_order._engine.paired.head import LabelRows
from surefoot.zeroth_order._engine.paired.losses import SplitLosses
from surefoot.zeroth_order._engine.paired.plan import Plan, tensors_of
from surefoot.zeroth_order._engine.paired.prefix import Prefix
from surefoot.zeroth_order._engine.paired.products import LOW, Product, Weights
from surefoot.zeroth_order._engine.paired.staging import Owners, stage
from surefoot.zeroth_order._engine.replacing import replace_forward
from surefoot.zeroth_order._engine.self_check import eagerly
from surefoot.zeroth_order._engine.tensors import TrainedTensor


class PairedForward:
    """Evaluates a closure at several points in one forward.

    Parameters
    ----------
    directions
        Of the step.
    plan
        How modules serve the trained tensors.
    model
        The module.
    low
        The dtype of its products; None: as exact as the rest.

    Attributes
    ----------
    used
        The plan of the last evaluation: norms whose weight is near 0, which hooks divide by, are called once
        a copy in it.
    prefix, heads
        What is computed once, or for some rows only; the first of the heads is used.
    staged
        Whether the model's own weights are in 16 bits, and all but products is computed in float32.
    """

    def __init__(
        self, directions: Directions, plan: Plan, model: nn.Module, low: torch.dtype | None = None
    ) -> None:
        self.directions, self.plan, self.model, self.low = directions, plan, model, low
        self.used = plan
        self.copies, self.weights = Copies(), Weights()
        self.owners = Owners(model)
        self.linear = [m for m in model.modules() if linear_kind(m) is not None]
        self.last = next((m for m in reversed(plan.called) if linear_kind(m) is not None), None)
        self.staged = any(p.dtype in LOW for p in model.parameters())
        self.prefix = Prefix.of(model, plan)
        head = LabelRows.head_of(model)
        self.heads = [] if head is None else [LabelRows(model, head, s) for s in (True, False)]

    def __call__(
        self, closure: Callable[[Any], Any], batch: Any, rows: int, points: Points,
        run: Callable[[Callable[[], Any]], Any],
    ) -> list[float]:  # fmt: skip
        """The losses at some points.

        Parameters
        ----------
        closure, batch, rows
            Of the loss, of one copy, and how many rows that has.
        points
            (direction, sign) of each copy.
        run
            Calls what it is given, without gradients.

        Raises
        ------
        Unpaired
            If the copies cannot be told apart.
        """
        k = len(points)
        with self._laid_out(points, rows), contextlib.ExitStack() as stack, eagerly():
            given, kept = batch if self.prefix else repeated(batch, k, rows), None
            if self.prefix is not None:
                self.prefix.lay(stack, self.copies, k)
            if self.heads and LabelRows.are_few(batch):
                kept = self.heads[0].lay(stack, self.copies, batch["labels"]).kept
            if self.staged:
                given = mapped(given, lambda x: x.float() if x.dtype in LOW else x)
            with SplitLosses(self.copies, kept):
                found = run(functools.partial(closure, given))
            return losses_of(found, k, rows)

    def shortcuts(self) -> Iterator[None]:
        """What may be left out, one after the other: whether a model allows it is seen by its losses."""
        while self.heads:
            self.heads = self.heads[1:]
            yield
        if self.prefix is not None:
            self.prefix = None
            yield

    @contextlib.contextmanager
    def _laid_out(self, points: Points, rows: int) -> Iterator[None]:
        copies, tensors = self.copies, self._shown()
        with contextlib.ExitStack() as stack:
            stack.callback(self.directions.gather, tensors)
            self.directions.spread(points, copies, tensors)
            # For this evaluation alone: a run that goes on from a state then sums in the same order.
            self.used = self.plan.separate(self._norms_near_zero())
            for module, hook in self.used.hooked:
                handle = module.register_forward_hook(hook, prepend=True, with_kwargs=True)
                stack.callback(handle.remove)
            if self.low is not None or self.staged:
                self._compute(stack, points)
            for module, written in self.used.apart.items():
                self._set_apart(stack, module, written, points)
            copies.k, copies.lo, copies.rows, copies.apart = len(points), 0, rows, False
            try:
                yield
            finally:
                copies.k = copies.lo = 0
                copies.apart = False

    def _shown(self) -> list[TrainedTensor]:
        """What hooks add, the tensors that are written apart."""
        served = {id(x): x for _, hook in self.plan.hooked for x in tensors_of(hook)}
        hooked = {
            id(x): x for x in self.directions.tensors if x.storage == "hooked" and not x.frozen
        }
        return list((served | hooked).values())

    def _norms_near_zero(self) -> list[nn.Module]:
        return [
            module
            for module, hook in self.plan.hooked
            if isinstance(hook, serving.Scaled) and not hook.is_safe(self.directions.louder)
        ]

    def _compute(self, stack: contextlib.ExitStack, points: Points) -> None:
        """Products in few bits, and what must be in more."""
        directions = self.directions
        self.weights.period = directions.t // directions.settings.nu
        pairs = all(
            a == b and s == -t for (a, s), (b, t) in zip(points[::2], points[1::2], strict=False)
        )
        if self.staged:
            stage(stack, self.model, self.owners, directions.tensors)
        for module in self.linear:
            written = self.used.apart.get(module, ())
            if not any(x.param is module._parameters.get("weight") for x in written):
                low = None if module is self.last else self.low
                paired = pairs and len(points) % 2 == 0
                forward = Product(module, self.copies, low, self.weights, paired)
                replace_forward(stack, module, forward)

    def _set_apart(
        self, stack: contextlib.ExitStack, module: nn.Module, written: list[TrainedTensor],
        points: Points,
    ) -> None:  # fmt: skip
        directions = self.directions

        def show(k: int | None) -> None:
            for tensor in written:
                if self.staged:
                    i, s = (points[0][0], 0.0) if k is None else points[k]
                    self.owners.show(tensor, directions.value_at(tensor, i, s))
                elif k is None:
                    tensor.write()
                else:
                    directions.place_one(tensor, *points[k])

        if self.staged:
            for tensor in written:
                for owner, name in self.owners.of[id(tensor.param)]:
                    stack.callback(owner._parameters.__setitem__, name, owner._parameters[name])
        replace_forward(stack, module, serving.Apart(self.copies, module.forward, show))


def losses_of(found: Any, k: int, rows: int) -> list[float]:
    """What a closure returned for k copies, as one loss a copy.

    Raises
    ------
    Unpaired
        If it is neither k numbers nor one a row.
    """
    if isinstance(found, (list, tuple)) and all(isinstance(x, (int, float)) for x in found):
        found = torch.tensor(found, dtype=torch.float64)
    if not isinstance(found, Tensor) or found.numel() == 1 < k:
        raise Unpaired(
            f"the closure returned one number for {k} copies and has mixed them: return what "
            f"cross_entropy or another loss of torch.nn.functional returns, or one loss a row"
        )
    flat = found.detach().double().reshape(-1)
    if found.ndim > 1 or flat.numel() not in (k, k * rows):
        raise Unpaired(
            f"the closure returned a tensor of shape {tuple(found.shape)} for {k} copies of {rows} "
            f"rows: return {k} numbers, or one a row"
        )
    return [float(x) for x in flat.view(k, -1).mean(1)]


def single_loss(found: Any, rows: int) -> Any:
    """What a closure returned for one copy: losses of rows as their mean."""
    one_a_row = isinstance(found, Tensor) and found.ndim == 1 and 1 < found.numel() == rows
    return found.double().mean() if one_a_row else found
