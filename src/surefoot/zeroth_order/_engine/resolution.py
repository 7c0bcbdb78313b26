"""What a run should be told of: perturbations that round away, and losses that cannot tell them apart."""

from __future__ import annotations

from typing import Any

import torch

from surefoot.errors import warn
from surefoot.zeroth_order._engine.directions import Directions
from surefoot.zeroth_order._engine.evaluation import Difference

FLAT = 20


class FlatLosses:
    """Counts steps in which F+ and F- were the same number."""

    def __init__(self) -> None:
        self.steps = 0

    def look(self, found: list[Difference]) -> None:
        """Warn after `FLAT` such steps in a row."""
        if any(f.plus != f.minus for f in found):
            self.steps = 0
            return
        self.steps += 1
        if self.steps == FLAT:
            warn(
                f"F+ and F- were equal in {FLAT} steps in a row: eps is below the resolution of the loss; "
                "compute the loss in float32, or raise eps",
            )


def warn_of_skipped(t: int, last: dict[str, Any], *, counted: bool) -> None:
    """Tell of the first step that is skipped.

    Parameters
    ----------
    t
        Which step.
    last
        Its losses.
    counted
        Whether there was anything to count in it.
    """
    why = (
        f"its losses were {last['loss_plus']:g} and {last['loss_minus']:g}"
        if counted
        else "no micro-batch had anything to count (weight 0)"
    )
    warn(
        f"step {t} was skipped, the weights stand still: {why}; further ones are counted in `skipped`",
    )


def warn_of_rounding(directions: Directions) -> None:
    """Name dense 16-bit tensors whose perturbation is smaller than the distance of two numbers."""
    lost = []
    for tensor in directions.tensors:
        if tensor.dense and tensor.storage == "written" and tensor.param.element_size() < 4:
            eps = directions.groups[tensor.group]["eps"]
            spacing = torch.finfo(tensor.param.dtype).eps * tensor.param.detach().float().abs()
            if float((spacing > 2 * eps).float().mean()) > 0.5:
                lost.append(tensor)
    if lost:
        warn(
            f"eps is below the spacing of {lost[0].param.dtype} in most entries of {lost[0].name}"
            + (f" and {len(lost) - 1} more" if len(lost) > 1 else "")
            + ": their perturbations round away; keep these tensors in float32, or freeze them",
        )
