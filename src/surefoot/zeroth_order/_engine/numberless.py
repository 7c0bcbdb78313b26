"""Trained parameters that have a shape and no numbers: a base that stays quantised.

Either they say what stands for their numbers (`packed()`, as `surefoot.data`'s blocks do), or they are on the
meta device and their modules hold something else. Hooks serve both; nothing can be folded into either.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn

from surefoot.zeroth_order._engine.settings import Settings
from surefoot.zeroth_order._engine.tensors import TrainedTensor


def note_packed(tensor: TrainedTensor, modules: Iterable[nn.Module]) -> None:
    """Note what stands for the numbers of a tensor that has none, and where its factors belong.

    Parameters
    ----------
    tensor
        A trained tensor.
    modules
        Its owners, whose buffers hold the numbers of a parameter on the meta device.

    Raises
    ------
    ValueError
        If a parameter on the meta device belongs to a module that holds nothing else.
    """
    packed = getattr(tensor.param, "packed", None)
    if packed is not None:
        tensor.packed = tuple(packed())
    elif tensor.param.is_meta:
        found = {id(b): b for module in modules for b in module.buffers() if not b.is_meta}
        if not found:
            raise ValueError(
                f"{tensor.name} is on the meta device and its module has no buffers that hold its numbers: "
                "load the weights first, or keep what stands for them in buffers"
            )
        tensor.packed = tuple(found.values())


def check_numberless(
    tensors: list[TrainedTensor], settings: Settings, groups: list[dict[str, Any]]
) -> None:
    """Refuse what would write weights that cannot be written.

    Raises
    ------
    ValueError
        If fold is not False, or a weight decay is set, or a tensor is not served by hooks.
    """
    found = [x for x in tensors if x.numberless]
    if not found:
        return
    first = found[0].name
    if settings.mode != "factored":
        raise ValueError(
            f"mode must be 'factored': {first} stays quantised and cannot be perturbed in place; "
            "use LOZO(model, fold=False)"
        )
    if settings.fold:
        raise ValueError(
            f"fold must be False: {first} stays quantised, and factors cannot be folded into it"
        )
    decayed = [g["weight_decay"] for g in groups if g["weight_decay"]]
    if decayed:
        raise ValueError(
            f"weight_decay must be 0 where weights stay quantised, as {first} does, got {decayed[0]}"
        )
    for tensor in found:
        if tensor.dense:
            raise ValueError(
                f"{tensor.name} stays quantised and moves by hooks of low rank only: its rank must be at "
                f"least 1 and below {min(tensor.m, tensor.n)}; freeze it, or use LOZO"
            )
        if tensor.storage != "hooked":
            raise ValueError(
                f"{tensor.name} stays quantised and is read by a module that cannot be hooked: freeze it, or "
                "tell surefoot.zeroth_order.hooks.linear_like of the module's class"
            )


def refuse(tensors: Iterable[TrainedTensor], what: str) -> None:
    """Refuse something that needs the numbers of all weights.

    Raises
    ------
    ValueError
        If there is a tensor without.
    """
    found = next((x for x in tensors if x.numberless), None)
    if found is not None:
        raise ValueError(f"{found.name} stays quantised: {what}")


def parts(tensor: TrainedTensor) -> Iterable[tuple[str, Tensor]]:
    """What a digest of a tensor is taken of: its numbers, or what stands for them."""
    if tensor.packed is None:
        return [(tensor.name, tensor.param)]
    return [(tensor.name, each) for each in tensor.packed]
