"""Inputs outside the grid: counted, and said once when they are many."""

from __future__ import annotations

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from surefoot.errors import warn
from surefoot.kan._basis.edge import EdgeRule

OFTEN = 0.05
"""The share of inputs outside their grid from which on a layer warns."""
FAR = 2.0
"""So many widths of a grid away from it a function on it is extrapolated."""


class OutOfGridWarning(UserWarning):
    """Many inputs lie outside the grid, where splines fade to 0 and cease to learn."""


class Outside:
    """How many inputs a layer saw outside its grid.

    Two counts and not a share: checkpointing runs a forward pass twice.
    """

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Count from here on."""
        self.outside, self.total = 0, 0
        self._warned = False

    @property
    def fraction(self) -> float:
        return self.outside / self.total if self.total else 0.0

    def look(
        self, x: Tensor, lo: Tensor, hi: Tensor, rule: EdgeRule, tally: list[int] | None
    ) -> None:
        """Refuse what is not finite, count what is outside; `tally` are the kernel's own two counts."""
        if x.device.type == "meta" or not x.numel():
            return
        if tally is None:
            outside, wrong = 0, x.numel() - int(torch.isfinite(x).sum())
            if rule.basis == "bspline":
                outside = int(((x < lo) | (x > hi)).sum())
        else:
            outside, wrong = tally
        if wrong:
            raise ValueError(
                f"x must be finite, got {wrong} of {x.numel()} values that are NaN or infinite; where the "
                "inputs of the network are finite, training has diverged: lower the learning rate"
            )
        self.outside += outside
        self.total += x.numel()
        if outside and not self._warned and rule.policy == "zero" and self.fraction > OFTEN:
            self._warned = True
            warn(
                f"{100 * self.fraction:.3g} % of the inputs lie outside the grid, where splines fade to 0 "
                "and cease to learn; call fit_grid(x) with training inputs, widen grid_range, or choose "
                "out_of_grid='linear'",
                OutOfGridWarning,
            )


def warn_far(
    x: Float[Tensor, "n in"], lo: Float64[Tensor, " in"], hi: Float64[Tensor, " in"]
) -> None:
    """Warn where most values of a feature are so far from its grid that a function kept there is a guess."""
    room = FAR * (hi - lo)
    far = ((x < lo - room) | (x > hi + room)).double().mean(0) > 0.5
    far &= (x != x[:1]).any(0)  # of a constant one value is kept
    if far.any():
        i = int(far.nonzero()[0])
        column = x[:, i]
        warn(
            f"x[:, {i}] spans {float(column.min()):.4g} to {float(column.max()):.4g}, far from the layer's "
            f"grid, {float(lo[i]):.4g} to {float(hi[i]):.4g}: the function that keep=True keeps there is "
            "extrapolated, and a base function and the next layers expect numbers of about 1. Standardise "
            "the inputs of the network first; without a base, keep=False moves the splines with the grid",
            OutOfGridWarning,
        )
