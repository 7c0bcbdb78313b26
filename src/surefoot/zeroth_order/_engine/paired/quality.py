"""c as a step computes it and in float32, and what products are computed in."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from surefoot.zeroth_order._engine import evaluation as evaluations
from surefoot.zeroth_order._engine.paired.copies import Unpaired, rows_of
from surefoot.zeroth_order._engine.paired.pairing import Pairing
from surefoot.zeroth_order._engine.paired.products import dtype_of
from surefoot.zeroth_order._engine.paired.staging import in_float32
from surefoot.zeroth_order._engine.paired.timing import size_of


def products_of(pairing: Pairing) -> torch.dtype:
    """What products are computed in, as the last estimate was."""
    together = pairing.how.startswith("one forward")
    if together and pairing.low is not None:
        return pairing.low
    if pairing.autocast is not None:
        return pairing.autocast
    least = None if pairing.model is None else dtype_of(pairing.model)
    if least is not None and not together:
        return least
    tensors = pairing.directions.tensors
    low = [x.param.dtype for x in tensors if x.param.element_size() < 4]
    if low and not together:
        return low[0]
    exact = all(x.param.dtype == torch.float64 for x in tensors)
    return torch.float64 if exact else torch.float32


def c_of(
    pairing: Pairing, closure: Callable[[Any], Any], batch: Any, i: int, *, exact: bool
) -> float:
    """c along direction i as a step computes it, or as exactly as this model allows.

    Parameters
    ----------
    pairing
        Of the engine, which has looked at this closure and batch.
    closure, batch
        As in a step.
    i
        The direction.
    exact
        In float32.
    """
    once = functools.partial(pairing.once, closure, batch)
    directions, losses, forward = pairing.directions, pairing.losses, pairing.forward
    low = forward is not None and (pairing.low is not None or forward.staged)
    size = size_of(batch, 2, rows_of(batch))
    faster = pairing.choice.faster.get(size, True)
    together = pairing.refused is None and forward is not None and faster
    if not exact:
        what = pairing.arithmetic()
        pairing.how = f"one forward of 2 copies, {what}" if together else "two forwards"
    if forward is None or not (low if exact else together):
        with in_float32(pairing.model) if exact else contextlib.nullcontext():
            found = evaluations.central(lambda: losses(once), directions, i).c
            directions.release()
        return found
    before, forward.low = forward.low, None if exact else pairing.low
    try:
        points = [(i, 1.0), (i, -1.0)]
        plus, minus = forward(closure, batch, rows_of(batch), points, losses.raw)
    finally:
        forward.low = before
        directions.release()
    return (plus - minus) / (2 * evaluations.eps_of(directions))


def measured(
    pairing: Pairing, closure: Callable[[Any], Any], batch: Any, count: int,
    begin: Callable[[Callable[[], Any]], None],
) -> tuple[np.ndarray, np.ndarray, str]:  # fmt: skip
    """c as a step computes it, c in float32, and how a step computes it.

    Parameters
    ----------
    pairing, closure, batch
        As above.
    count
        How many directions.
    begin
        Begins the step, with the closure of one copy.

    Raises
    ------
    ValueError
        If the closure is in autocast.
    """
    once = functools.partial(pairing.once, closure, batch)
    with pairing.losses.together(once) as same:
        begin(once)
        if pairing.autocast is not None:
            same.undo()
            raise ValueError(
                f"the closure is in autocast to {pairing.autocast}, which decides the arithmetic: c in "
                "float32 cannot be had beside it; leave autocast out of the closure"
            )
        if pairing.refused is None:
            try:
                pairing.ready(closure, batch, rows_of(batch), once)
            except Unpaired as error:
                pairing.refused = str(error)
        found = [
            [c_of(pairing, closure, batch, i, exact=exact) for i in range(count)]
            for exact in (False, True)
        ]
        same.undo()
    name = str(products_of(pairing)).removeprefix("torch.")
    return np.array(found[0]), np.array(found[1]), name
