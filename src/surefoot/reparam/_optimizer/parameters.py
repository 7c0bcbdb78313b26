"""What optimisers here are given: parameters, groups or names, and values keyed by either."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from surefoot._numerics.arguments import checked
from surefoot._numerics.checks import check_number
from surefoot.errors import NonFiniteError

Params = Iterable[Any]
Value = TypeVar("Value")


def split_names(params: Params) -> tuple[list[dict[str, Any]], dict[Tensor, str]]:
    """Groups of plain parameters, and the names of those that came as (name, parameter)."""
    given = list(params)
    groups = given if given and isinstance(given[0], dict) else [{"params": given}]
    names: dict[Tensor, str] = {}
    found = []
    for group in groups:
        inside = group["params"]
        plain = []
        for item in [inside] if isinstance(inside, Tensor) else inside:
            if isinstance(item, tuple):
                names[item[1]] = item[0]
                plain.append(item[1])
            else:
                plain.append(item)
        found.append({**group, "params": plain})
    return found, names


def by_parameter(
    values: Mapping[Any, Value],
    parameters: Iterable[Tensor],
    names: Mapping[Tensor, str],
    what: str,
) -> dict[Tensor, Value]:
    """Values keyed by parameter, from values keyed by parameter or by name.

    Raises
    ------
    ValueError
        A name where the parameters came without names, or a key that is none of them.
    """
    known = {name: p for p, name in names.items()}
    parameters = set(parameters)
    found = {}
    for key, value in values.items():
        if isinstance(key, str):
            if not known:
                raise ValueError(
                    f"{what} are keyed by names: give model.named_parameters(), not parameters()"
                )
            if key not in known:
                raise ValueError(f"{what} name {key!r}, which is none of the given parameters")
            found[known[key]] = value
        elif key in parameters:
            found[key] = value
        else:
            raise ValueError(f"{what} hold a tensor that is none of the given parameters")
    return found


def check_mult(mult: Tensor, parameter: Tensor, name: str) -> Tensor:
    """A multiplier of its parameter's shape, dtype and device: finite and not negative."""
    mult = torch.as_tensor(mult).detach()
    if mult.shape != parameter.shape:
        raise ValueError(
            f"the multiplier of {name} must have shape {tuple(parameter.shape)}, "
            f"got {tuple(mult.shape)}"
        )
    if not bool((torch.isfinite(mult) & (mult >= 0)).all()):
        raise ValueError(f"the multiplier of {name} must be finite and at least 0")
    return mult.to(parameter.dtype).to(parameter.device).clone()


def check_gradients(
    parameters: list[Tensor], gradients: list[Tensor], label: Mapping[Tensor, str], step: int
) -> None:
    """Raise NonFiniteError, naming the parameter, where a gradient holds NaN or infinity."""
    if not gradients:
        return
    norms = torch._foreach_norm(gradients)
    if bool(torch.isfinite(torch.stack([n.to(norms[0].device) for n in norms])).all()):
        return
    # A norm may overflow where no entry does, so look at the entries before raising.
    for parameter, gradient in zip(parameters, gradients, strict=True):
        if not bool(torch.isfinite(gradient).all()):
            bad = float(gradient[~torch.isfinite(gradient)][0])
            raise NonFiniteError(f"the gradient of {label[parameter]}", step, bad)


def labels(groups: list[dict[str, Any]], names: Mapping[Tensor, str]) -> dict[Tensor, str]:
    """How messages call each parameter."""
    return {
        p: names.get(p, f"parameter {i} of group {g}, shape {tuple(p.shape)}")
        for g, group in enumerate(groups)
        for i, p in enumerate(group["params"])
    }


@checked
def decay_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Two groups of (name, parameter): kernels, matrices and identity scales decay, the rest does not.

    The identity scale must decay with its kernels: merged, it is part of a kernel that does. (The authors'
    Ghost reference leaves it out, and with it their equality under weight decay.)
    """
    check_number("weight_decay", weight_decay, least=0)
    decayed: list[tuple[str, Tensor]] = []
    kept: list[tuple[str, Tensor]] = []
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        identity = name == "identity" or name.endswith(".identity")
        (decayed if parameter.dim() > 1 or identity else kept).append((name, parameter))
    return [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": kept, "weight_decay": 0.0},
    ]
