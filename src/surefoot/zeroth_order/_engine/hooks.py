"""Forward hooks that add a low-rank term to what a module returns, so that its weights need not be written.

Only modules whose forward is exactly that of nn.Linear, nn.Embedding or Hugging Face's Conv1D can be hooked:
a subclass with a forward of its own may read its weight in another way.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from surefoot.zeroth_order._engine.tensors import Slot

Hook = Callable[[nn.Module, tuple[Any, ...], dict[str, Any], Any], Any]


def _input(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """The one argument of these modules, however it was given."""
    found: Tensor = args[0] if args else next(iter(kwargs.values()))
    return found


def _accumulate(y: Tensor, x: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """y + (x left) right, into y where its memory allows."""
    inner = x.reshape(-1, x.shape[-1]).to(left.dtype) @ left
    if y.is_contiguous() and not (torch.is_grad_enabled() and y.requires_grad):
        y.view(-1, y.shape[-1]).addmm_(inner, right)
        return y
    return y + (inner @ right).view_as(y)


def _linear(slot: Slot) -> Hook:
    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], y: Any) -> Any:
        slot.fired += 1
        if not slot.active:
            return None
        for a, v in slot.factors():
            y = _accumulate(y, _input(args, kwargs), v.to(y.dtype), a.T.to(y.dtype))
        return y

    return hook


def _conv1d(slot: Slot) -> Hook:
    """Its weight is (in, out): y = x W, so W's rows are the inputs."""

    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], y: Any) -> Any:
        slot.fired += 1
        if not slot.active:
            return None
        for a, v in slot.factors():
            y = _accumulate(y, _input(args, kwargs), a.to(y.dtype), v.T.to(y.dtype))
        return y

    return hook


def _embedding(slot: Slot) -> Hook:
    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], y: Any) -> Any:
        slot.fired += 1
        if not slot.active:
            return None
        for a, v in slot.factors():
            rows = a[_input(args, kwargs).reshape(-1)].to(y.dtype)
            y = y + (rows @ v.T.to(y.dtype)).view_as(y)
        return y

    return hook


def hook_for(module: nn.Module, parameter: str) -> Callable[[Slot], Hook] | None:
    """What to register for this parameter of this module, or None where it cannot be hooked."""
    if parameter != "weight":
        return None
    kind = type(module)
    if isinstance(module, nn.Linear) and kind.forward is nn.Linear.forward:
        return _linear
    if isinstance(module, nn.Embedding) and kind.forward is nn.Embedding.forward:
        # Renormalising writes into the weight during the forward.
        return _embedding if module.max_norm is None else None
    if kind.__name__ == "Conv1D" and kind.__module__ == "transformers.pytorch_utils":
        return _conv1d
    return None


def install(model: nn.Module, slots: list[Slot]) -> None:
    """Hook every matrix all of whose owners can be hooked; the others are left as they are."""
    owners: dict[int, list[tuple[nn.Module, str]]] = {}
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False, remove_duplicate=False):
            owners.setdefault(id(parameter), []).append((module, name))
    for slot in slots:
        found = owners.get(id(slot.param), [])
        makers = [(module, hook_for(module, name)) for module, name in found]
        # A parametrised weight is computed from its originals on every access: not a weight to be hooked.
        if slot.dense or not makers or any(make is None for _, make in makers):
            continue
        for module, make in makers:
            assert make is not None
            # First of all hooks: later ones, a user's too, then see the whole output.
            slot.hooks.append(
                module.register_forward_hook(make(slot), prepend=True, with_kwargs=True)
            )
        slot.storage = "hooked"
