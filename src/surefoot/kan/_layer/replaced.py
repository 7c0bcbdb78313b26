"""Weights that a layer has put aside: an optimizer that still holds one trains nothing, and is told of it."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from surefoot.errors import warn

_aside: dict[int, weakref.ref[nn.Parameter]] = {}
_watching: list[Any] = []


def put_aside(weight: nn.Parameter) -> None:
    """Warn, once, when an optimizer takes a step with this parameter among its own."""
    key = id(weight)
    _aside[key] = weakref.ref(weight, lambda _: _aside.pop(key, None))
    if not _watching:
        _watching.append(register_optimizer_step_pre_hook(_look))


def _look(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
    if not _aside:
        return
    held = [id(p) for group in optimizer.param_groups for p in group["params"] if id(p) in _aside]
    for key in held:
        _aside.pop(key, None)
    if held:
        warn(
            f"{type(optimizer).__name__} holds {len(held)} weights that refine() has replaced: they are no "
            "part of the model any more and their successors are not trained; make a new optimizer of "
            "model.parameters()"
        )
