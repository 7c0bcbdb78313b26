"""Loss scaling (torch.amp.GradScaler) as an optimizer's own step sees it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def held_scale(optimizer: Any, kwargs: Mapping[str, Any]) -> float:
    """What the gradients are still multiplied by when `optimizer.step` begins.

    A scaler hands its scale to an optimizer that unscales by itself (torch's fused ones) and has divided
    by it for any other.

    Parameters
    ----------
    optimizer
        At the beginning of its step.
    kwargs
        What its step was called with: older fused optimizers get the scaler itself.
    """
    scale = getattr(optimizer, "grad_scale", None)
    if scale is not None:
        return float(scale)
    scaler = kwargs.get("grad_scaler")
    if scaler is None:
        return 1.0
    stage = scaler._per_optimizer_states[id(optimizer)]["stage"]
    return 1.0 if stage.name == "UNSCALED" else float(scaler.get_scale())


def is_skipped(optimizer: Any) -> bool:
    """Whether an optimizer that unscales by itself will leave this step out: a gradient overflowed."""
    found = getattr(optimizer, "found_inf", None)
    return found is not None and bool(found)
