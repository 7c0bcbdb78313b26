"""The optimizer that steps, inside those of Accelerate, Opacus, Lightning and DeepSpeed."""

from __future__ import annotations

from typing import Any

import torch

# Where each of them holds it: Accelerate, Lightning and DeepSpeed; Opacus.
INSIDE = ("optimizer", "original_optimizer")


def innermost(optimizer: Any) -> torch.optim.Optimizer:
    """What an optimizer wraps, down to the one whose step changes parameters.

    A wrapper leaves steps out: while gradients accumulate, on an overflow, in Opacus on part of a batch. Its
    inner optimizer is not asked then, so that what is counted there are steps.

    Parameters
    ----------
    optimizer
        A torch optimizer, or what holds one as `optimizer` or `original_optimizer`.

    Raises
    ------
    TypeError
        There is no torch optimizer inside.
    """
    found, seen = optimizer, set()
    while id(found) not in seen and not _takes_hooks(found):
        seen.add(id(found))
        inside = (getattr(found, name, None) for name in INSIDE)
        found = next((o for o in inside if _is_optimizer(o)), found)
    if not isinstance(found, torch.optim.Optimizer):
        raise TypeError(
            f"optimizer must be a torch.optim.Optimizer or hold one, got {type(optimizer).__name__}"
        )
    return found


def _takes_hooks(optimizer: Any) -> bool:
    """Whether it is a torch optimizer with a step of its own, which may hold another: lookahead, SAM."""
    return isinstance(optimizer, torch.optim.Optimizer) and hasattr(
        optimizer, "_optimizer_step_pre_hooks"
    )


def _is_optimizer(thing: Any) -> bool:
    return isinstance(thing, torch.optim.Optimizer) or (
        thing is not None
        and callable(getattr(thing, "step", None))
        and hasattr(thing, "param_groups")
    )
