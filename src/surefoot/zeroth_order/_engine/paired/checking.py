"""The first paired forward is compared with forwards apart, at perturbations large in every tensor."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from surefoot._numerics.sizes import wide
from surefoot.zeroth_order._engine.directions import Directions
from surefoot.zeroth_order._engine.evaluation import Losses
from surefoot.zeroth_order._engine.paired.copies import DRAWS, NotNow, Unpaired
from surefoot.zeroth_order._engine.paired.forward import PairedForward
from surefoot.zeroth_order._engine.paired.plan import Plan
from surefoot.zeroth_order._engine.tensors import TrainedTensor, exact

# The perturbations that are looked at, relative to the weights; the next where a loss is not finite.
LOUD = (0.1, 0.01, 1e-3)
# What a tensor of zeros counts as.
LEAST = 0.1
LOW_TOLERANCE = 0.05


def check(
    forward: PairedForward, closure: Callable[[Any], Any], batch: Any, rows: int, losses: Losses,
    once: Callable[[], Any],
) -> bool:  # fmt: skip
    """Whether a forward of two copies gives the losses of two forwards; False if no loss could tell.

    Modules whose hooks give others are called once a copy from now on.

    Parameters
    ----------
    forward
        Of several copies.
    closure, batch, rows
        As in a step.
    losses, once
        How a loss is evaluated, and the closure of one copy.

    Raises
    ------
    Unpaired
        If the losses differ, whatever module is called once a copy.
    """
    directions, low = forward.directions, forward.low
    points = [(0, 1.0), (0, -1.0)]
    for loud in LOUD:
        directions.louder = {x.index: _louder(directions, x, loud) for x in directions.tensors}
        try:
            wanted = []
            for i, s in points:
                directions.place(i, s)
                wanted.append(losses(once))
            directions.release()
            if not all(map(math.isfinite, wanted)):
                continue

            def losses_together() -> list[float]:
                return forward(closure, batch, rows, points, losses.raw)

            agrees = functools.partial(
                _agree, losses_together, wanted, tolerance_of(directions.tensors)
            )
            forward.low = None
            if not _without_shortcuts(forward, agrees) and not _mended(forward, agrees):
                if losses.same is not None and losses.same.drew:
                    raise NotNow(DRAWS)
                raise Unpaired(
                    "the losses of one forward of two copies are not those of two forwards: something "
                    "in the model or the closure mixes the rows of a batch"
                )
            if not _independent(forward, closure, batch, rows, losses):
                raise Unpaired(
                    "the loss of one copy moves with the weights of another: a term of the closure is taken "
                    "over all rows (a penalty on activations, an auxiliary loss); return one loss a row"
                )
            forward.low = low
            if low is not None and not _agree(losses_together, wanted, LOW_TOLERANCE):
                raise Unpaired(
                    f"the losses with products in {low} are more than {LOW_TOLERANCE:.0%} off"
                )
            return True
        finally:
            forward.low = low
            directions.release()
            directions.louder = {}
    return False


def normalises(model: nn.Module) -> str:
    """Why copies cannot share the present forward, which one in evaluation mode may allow; else nothing."""
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and (
            module.training or module.running_mean is None
        ):
            return f"{name} normalises over its batch, which would hold all copies: call model.eval() first"
    return ""


def _agree(found: Callable[[], list[float]], wanted: list[float], tolerance: float) -> bool:
    return all(
        math.isclose(a, b, rel_tol=tolerance, abs_tol=1e-2 * tolerance)
        for a, b in zip(found(), wanted, strict=True)
    )


def _independent(
    forward: PairedForward, closure: Callable[[Any], Any], batch: Any, rows: int, losses: Losses
) -> bool:
    """Whether the loss of copy 0 is the same whatever the weights of copy 1: a small term in common shows."""
    # Shapes and the rows of copy 0 are the same, and so is the rounding, but for the order of sums on a GPU.
    kinds = [exact(x.param.dtype) for x in forward.directions.tensors]
    tolerance = 2 * max(torch.finfo(kind).eps for kind in kinds)
    one, two = (
        forward(closure, batch, rows, [(0, 1.0), (0, s)], losses.raw)[0] for s in (-1.0, 1.0)
    )
    return math.isclose(one, two, rel_tol=tolerance, abs_tol=1e-2 * tolerance)


def tolerance_of(tensors: list[TrainedTensor]) -> float:
    """How far apart losses of the same weights may be."""
    least = min(x.param.element_size() for x in tensors)
    # Losses are often taken in float32 whatever the model is in.
    return {8: 1e-6, 4: 1e-4}.get(least, 3e-2)


def _louder(directions: Directions, tensor: TrainedTensor, loud: float) -> float:
    """How many times eps it takes to move a tensor by a share of its norm."""
    eps, factor = directions.groups[tensor.group]["eps"], directions.scale_of(tensor)[0]
    # A weight that is kept in another form says its norm itself.
    own = getattr(tensor.param, "frobenius", None)
    if own is None:
        weight = tensor.matrix() if tensor.param.ndim else tensor.param.detach().view(1, 1)
        norms = [float(weight[rows].float().norm()) for rows in tensor.row_blocks()]
    else:
        norms = [float(own())]
    whole = math.hypot(*norms) + LEAST * math.sqrt(tensor.param.numel())
    u = wide(directions.draw(tensor, 0))
    if tensor.dense:
        moved = float(u.double().norm())
    else:
        assert tensor.v is not None
        v = wide(tensor.v)
        moved = float(((u.T @ u) * (v.T @ v)).sum()) ** 0.5 * factor
    return float(loud * whole / max(moved * eps, 1e-30))


def _without_shortcuts(forward: PairedForward, agrees: Callable[[], bool]) -> bool:
    """Whether it agrees with what it computes once or in part, or else without."""
    left = forward.shortcuts()
    while forward.heads or forward.prefix:
        try:
            if agrees():
                return True
        except (Unpaired, RuntimeError, ValueError, TypeError, IndexError, AttributeError):
            # A closure may look at rows that are not there.
            pass
        next(left)
    return agrees()


def _mended(forward: PairedForward, agrees: Callable[[], bool]) -> bool:
    """Find the modules whose hooks are wrong, by halves, and have them called once a copy."""
    before: Plan = forward.plan
    suspects: list[nn.Module] = list(dict.fromkeys(m for m, _ in before.hooked))

    def without(modules: list[nn.Module]) -> bool:
        forward.plan = before.separate(modules)
        return agrees()

    if not suspects or not without(suspects):
        forward.plan = before
        return False
    while len(suspects) > 1:
        half = suspects[: len(suspects) // 2]
        if without(half):
            suspects = half
        elif without(suspects[len(half) :]):
            suspects = suspects[len(half) :]
        else:
            break
    forward.plan = before.separate(suspects)
    return True
