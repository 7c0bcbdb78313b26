"""What the optimizer was, step by step: the part of a theorem's conditions that a chain sees itself."""

from __future__ import annotations

import math
from typing import Any

from surefoot.lora._block import optimizer_state
from surefoot.lora._block.adapted_layer import AdaptedLayer


class StepsSeen:
    """Smallest and largest step size gamma = lr s^2 met at a block's first step, and objections."""

    def __init__(self) -> None:
        self.smallest = math.inf
        self.largest = 0.0
        self.reasons: list[str] = []

    def object(self, reason: str) -> None:
        """Remember why no theorem covers this run; the same reason counts once."""
        if reason not in self.reasons:
            self.reasons.append(reason)

    def look(self, optimizer: Any, layers: list[AdaptedLayer], plain: bool, factor: float) -> None:
        """Take note of an optimizer at a step; `plain` learning rates are gamma themselves."""
        reason = optimizer_state.plain_sgd(optimizer)
        if reason:
            self.object(reason)
            return
        place = {id(p): group for group in optimizer.param_groups for p in group["params"]}
        for layer in layers:
            for parameter in (layer.parameter("A"), layer.parameter("B"), layer.weight):
                group = place.get(id(parameter))
                if group is None or not parameter.requires_grad:
                    continue
                gamma = float(group["lr"]) * factor * (1.0 if plain else layer.scaling**2)
                self.smallest = min(self.smallest, gamma)
                self.largest = max(self.largest, gamma)

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        smallest = self.smallest if math.isfinite(self.smallest) else None
        return {"smallest": smallest, "largest": self.largest, "reasons": self.reasons}

    def load(self, data: dict[str, Any]) -> None:
        """Put back what `to_dict` gave."""
        self.smallest = math.inf if data["smallest"] is None else data["smallest"]
        self.largest, self.reasons = data["largest"], list(data["reasons"])
