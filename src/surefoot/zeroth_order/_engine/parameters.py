"""What an optimizer is given, as groups of trainable tensors with names."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn

from surefoot._numerics.checks import check_number
from surefoot._numerics.shown import shown
from surefoot.zeroth_order._engine import checks
from surefoot.zeroth_order._engine.settings import Settings
from surefoot.zeroth_order._engine.tensors import TrainedTensor

# Nobody would read them in a group.
OF_ALL = {f.name for f in dataclasses.fields(Settings)} | {"reproject", "betas", "adam_eps"}


def model_of(given: nn.Module | Iterable[Any], model: nn.Module | None) -> nn.Module | None:
    """The module whose parameters are trained, without the wrapper of torch.compile; None if none was given.

    Raises
    ------
    ValueError
        If two were given, or the module is replicated on several GPUs.
    """
    if isinstance(given, nn.Module):
        if model is not None and model is not given:
            raise ValueError("model must not be given twice")
        model = given
    if isinstance(model, nn.DataParallel) and len(model.device_ids) > 1:
        raise ValueError(
            f"nn.DataParallel replicates the model on {len(model.device_ids)} GPUs, where factors do not "
            "follow: pass model.module, or start one process per GPU with torchrun"
        )
    # Its parameters are named as in the module itself, so that logs of both replay on either.
    found: nn.Module | None = getattr(model, "_orig_mod", model)
    return found


def embeddings(model: nn.Module | None) -> set[int]:
    """Ids of the weights of embeddings.

    Raises
    ------
    ValueError
        Without a model.
    """
    if model is None:
        raise ValueError("freeze_embeddings needs the model: pass the module, or model=")
    return {id(m.weight) for m in model.modules() if isinstance(m, (nn.Embedding, nn.EmbeddingBag))}


def groups_of(given: nn.Module | Iterable[Any], frozen: set[int]) -> list[dict[str, Any]]:
    """Parameter groups without what is frozen, tied tensors once.

    Raises
    ------
    ValueError
        If there is nothing.
    """
    listed: list[Any] = list(given.parameters() if isinstance(given, nn.Module) else given)
    if not listed:
        raise ValueError("params must hold at least one trainable tensor, got none")
    if isinstance(listed[0], dict):
        groups = []
        for g in listed:
            members = [g["params"]] if isinstance(g["params"], Tensor) else list(g["params"])
            groups.append(g | {"params": [p for p in members if id(p) not in frozen]})
        return groups
    return [{"params": [p for p in listed if id(p) not in frozen]}]


def trainable(given: Any) -> list[nn.Parameter]:
    """The members of a group that have something to train.

    Raises
    ------
    ValueError
        If there are none.
    """
    listed: list[Any] = [given] if isinstance(given, Tensor) else list(given)
    if not all(isinstance(p, Tensor) for p in listed):
        raise ValueError(
            f"params must be tensors, got {shown(listed)}; params_or_model may be a module as well"
        )
    found = [p for p in listed if p.requires_grad and p.numel()]
    if not found:
        raise ValueError("params must hold at least one trainable tensor, got none")
    return found


def check_group(group: dict[str, Any]) -> None:
    """The settings of one group, brought to plain numbers.

    Raises
    ------
    ValueError
        If one is out of its range, or belongs to the optimizer as a whole.
    """
    shared = sorted(OF_ALL & group.keys())
    if shared:
        raise ValueError(
            f"a group cannot have {', '.join(shared)} of its own, only lr, rank, eps and weight_decay; "
            "give it to the optimizer, for all groups"
        )
    for name in ("lr", "weight_decay"):
        group[name] = check_number(name, group[name], least=0)
    group["eps"] = check_number("eps", group["eps"], above=0)
    group["rank"] = check_number("rank", group["rank"], least=0, whole=True)


def trained_tensor(
    index: int, name: str, parameter: nn.Parameter, group: int, rank: int
) -> TrainedTensor:
    """One trained tensor.

    Parameters
    ----------
    index, name, parameter
        Its place among all, its name, itself.
    group, rank
        The place of its group, and the rank that the group asks for.

    Raises
    ------
    TypeError
        If it is integer, complex, quantised or sharded.
    ValueError
        If it is not contiguous.
    """
    checks.check_parameter(name, parameter)
    if not parameter.is_contiguous():
        raise ValueError(f"{name} must be contiguous, got strides {parameter.stride()}")
    tensor = TrainedTensor(index, name, parameter, group)
    tensor.rank = tensor.usable_rank(rank)
    return tensor


def check_drift(tensors: list[TrainedTensor], allow: bool) -> None:
    """Refuse 16-bit weights that would be perturbed in place.

    Raises
    ------
    ValueError
        If there are some and drift is not allowed.
    """
    low = drifting(tensors)
    if low and not allow:
        raise ValueError(
            f"{low[0].name} is {low[0].param.dtype} and would be perturbed in place, which destroys "
            "16-bit weights by rounding even at lr 0 (12 % of the norm in 1,000 steps of bfloat16); "
            "pass the model for mode 'factored', or allow_drift=True"
        )


def drifting(tensors: list[TrainedTensor]) -> list[TrainedTensor]:
    """16-bit tensors that are perturbed in place."""
    return [x for x in tensors if x.storage == "inplace" and x.param.element_size() < 4]
