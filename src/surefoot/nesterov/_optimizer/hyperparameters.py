"""The hyperparameters of a group, alpha, eta and rho: checked, kept by value, and as `update` uses them."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import Any

import torch
from torch import Tensor

Scalar = float | Tensor


@dataclass(frozen=True)
class StepForm:
    """The hyperparameters of one step, in the form in which the update uses them."""

    eta: Scalar
    rho: Scalar
    r: Scalar
    c: Scalar

    @classmethod
    def of(cls, alpha: Scalar, eta: Scalar, rho: Scalar) -> StepForm:
        """From the step sizes and the momentum."""
        if not isinstance(eta, Tensor) and eta == 0:
            return cls(eta, rho, 1.0, alpha * rho)
        if alpha is eta:
            return cls(eta, rho, 1.0, eta * rho)
        return cls(eta, rho, alpha / eta, eta * rho)


def velocity_scale(k: StepForm) -> Scalar:
    """What u must be multiplied with to give v; 0 where alpha or rho is 0, as v then plays no part."""
    if not isinstance(k.r, Tensor) and k.r == 0:
        return 0.0
    return -k.rho / k.r


def change_of_unit(before: StepForm, after: StepForm) -> Scalar:
    """What u must be multiplied with to give the same v under other hyperparameters."""
    old, new = velocity_scale(before), velocity_scale(after)
    if isinstance(new, Tensor):
        return torch.where(new == 0, torch.zeros_like(new), old / new)
    return 0.0 if new == 0 else old / new


def on_tensors(group: dict[str, Any]) -> bool:
    """Whether a hyperparameter of the group is a tensor."""
    return any(isinstance(group[name], Tensor) for name in ("lr", "correction", "momentum"))


def copied(
    hyperparameters: tuple[Any, ...], into: tuple[Any, ...] | None = None
) -> tuple[Any, ...]:
    """The hyperparameters by value: a tensor may be changed in place.

    Tensors of `into` are kept and overwritten, so that the replay of a captured graph finds in them
    those of the step before. NAG's alpha and eta stay one object.
    """
    done: dict[int, Any] = {}
    for i, a in enumerate(hyperparameters):
        if id(a) in done or not isinstance(a, Tensor):
            done.setdefault(id(a), a)
        elif into is not None and isinstance(into[i], Tensor):
            done[id(a)] = into[i].copy_(a)
        else:
            done[id(a)] = a.detach().clone()
    return tuple(done[id(a)] for a in hyperparameters)


def check_group(group: dict[str, Any]) -> None:
    """Raise ValueError for a hyperparameter out of its range."""
    for name in ("lr", "correction", "momentum"):
        if isinstance(group[name], Tensor) and group[name].numel() != 1:
            raise ValueError(f"{name} must be a number or a one-element tensor, got {group[name]}")
    for name in ("lr", "correction", "weight_decay"):
        value = float(group[name])
        if not (isfinite(value) and value >= 0):
            raise ValueError(f"{name} must be >= 0, got {value}")
    if isinstance(group["correction"], Tensor) and group["correction"] == 0:
        raise ValueError("correction must be > 0 where it is a tensor, got 0; pass the number 0.0")
    if not 0 <= group["momentum"] < 1:
        raise ValueError(f"momentum must be in [0, 1), got {group['momentum']}")
    if group["foreach"] and group["fused"]:
        raise ValueError("foreach and fused cannot both be True; choose one")
