"""What the optimizer was, step by step: the part of a theorem's conditions that a chain sees itself."""

from __future__ import annotations

import math
from typing import Any

from surefoot.lora._block import optimizer_state
from surefoot.lora._block.adapted_layer import AdaptedLayer
from surefoot.record import Fact

KINDS = 16  # a momentum that is scheduled differs at every step; no theorem needs all its values


class StepsSeen:
    """Smallest and largest step size gamma = lr s^2, of the run and of the open block; objections.

    Attributes
    ----------
    smallest, largest
        Over the whole run; infinity and 0 before the first step.
    block
        The same of the open block.
    kinds
        The optimizers that stepped, each as facts: its name and what makes SGD something else.
    changed
        Whether there is anything that the record does not have yet.
    reasons
        Why no theorem covers the run, as told from outside.
    """

    def __init__(self) -> None:
        self.smallest, self.largest = math.inf, 0.0
        self.block = (math.inf, 0.0)
        self.kinds: list[dict[str, Fact]] = []
        self.changed = False
        self.reasons: list[str] = []

    def object(self, reason: str) -> None:
        """Remember why no theorem covers this run; the same reason counts once."""
        if reason not in self.reasons:
            self.reasons.append(reason)

    def look(self, optimizer: Any, layers: list[AdaptedLayer], plain: bool, factor: float) -> None:
        """Take note of an optimizer at a step.

        Parameters
        ----------
        optimizer
            After its step.
        layers
            Whose factors it trains.
        plain
            Whether its learning rates are gamma themselves, not gamma / s^2.
        factor
            What a block's warm-up multiplied them by.
        """
        target = optimizer_state.inner(optimizer)
        place = {id(p): group for group in target.param_groups for p in group["params"]}
        for layer in layers:
            for parameter in (layer.parameter("A"), layer.parameter("B"), layer.weight):
                group = place.get(id(parameter))
                if group is None or not parameter.requires_grad:
                    continue
                self._remember(optimizer_state.kind_of(target, group))
                gamma = float(group["lr"]) * factor * (1.0 if plain else layer.scaling**2)
                if self.block[0] <= gamma <= self.block[1]:
                    continue
                self.changed = True
                self.smallest = min(self.smallest, gamma)
                self.largest = max(self.largest, gamma)
                self.block = (min(self.block[0], gamma), max(self.block[1], gamma))

    def _remember(self, kind: dict[str, Fact]) -> None:
        if len(self.kinds) < KINDS and kind not in self.kinds:
            self.kinds.append(kind)
            self.changed = True

    def open_block(self) -> None:
        """Forget the step sizes of the block that ended."""
        self.block = (math.inf, 0.0)

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        smallest = self.smallest if math.isfinite(self.smallest) else None
        return {"smallest": smallest, "largest": self.largest, "reasons": self.reasons}

    def load(self, data: dict[str, Any]) -> None:
        """Put back what `to_dict` gave."""
        self.smallest = math.inf if data["smallest"] is None else data["smallest"]
        self.largest, self.reasons = data["largest"], list(data["reasons"])
