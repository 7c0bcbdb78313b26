"""What becomes of an optimizer's state when factors are restarted."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from surefoot.record import Fact

MOMENTS = ("exp_avg", "exp_avg_sq")


def inner(optimizer: Any) -> Any:
    """The torch optimizer inside accelerate's wrapper."""
    while hasattr(optimizer, "optimizer"):
        optimizer = optimizer.optimizer
    return optimizer


def scaler_of(optimizer: Any) -> Any:
    """The GradScaler that accelerate's wrapper holds, however deep it lies; None where there is none."""
    while getattr(optimizer, "scaler", None) is None and hasattr(optimizer, "optimizer"):
        optimizer = optimizer.optimizer
    return getattr(optimizer, "scaler", None)


def moving(optimizer: Any) -> Any:
    """The torch optimizer that moves the weights, inside Opacus's wrapper too."""
    found = inner(optimizer)
    while hasattr(found, "original_optimizer"):
        found = found.original_optimizer
    return found


def missing(optimizer: Any, factors: dict[str, nn.Parameter]) -> list[str]:
    """The names of those factors that the optimizer does not hold."""
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    return [name for name, p in factors.items() if id(p) not in held]


def forget(optimizer: Any, factors: list[nn.Parameter]) -> None:
    """Drop the state of these factors only: heads of modules_to_save keep their moments."""
    for parameter in factors:
        optimizer.state.pop(parameter, None)


def prune(optimizer: Any, factors: list[nn.Parameter], fraction: float) -> None:
    """ReLoRA (arXiv 2307.05695): zero the smallest `fraction` of Adam's moments of each factor."""
    for parameter in factors:
        state = optimizer.state.get(parameter, {})
        for name in MOMENTS:
            moment: Tensor | None = state.get(name)
            if moment is None or not moment.numel():
                continue
            size = moment.abs().flatten()
            count = round(fraction * len(size))
            if count:
                threshold = size.kthvalue(count).values
                moment.mul_(moment.abs() > threshold)


def rewriting(
    optimizer: Any, factors: list[nn.Parameter], *, forget: bool
) -> AbstractContextManager[Any]:
    """For an optimizer that keeps an iterate of its own beside the parameters: it folds that first.

    Parameters
    ----------
    optimizer
        Or None.
    factors
        What is merged and written anew.
    forget
        Whether momenta are dropped.
    """
    method = getattr(inner(optimizer), "rewriting", None)
    return nullcontext() if method is None else method(factors, forget=forget)


def settle(optimizer: Any) -> None:
    """Let such an optimizer put its iterate into the parameters, so that they can be read."""
    method = getattr(inner(optimizer), "flush", None)
    if method is not None:
        method()


def forget_samples(factor: nn.Parameter) -> None:
    """Drop the per-sample gradients that Opacus left on a factor: it clears those of trained ones only."""
    for name in ("grad_sample", "summed_grad"):
        if getattr(factor, name, None) is not None:
            setattr(factor, name, None)


def in_private_model(factors: Iterable[nn.Parameter]) -> bool:
    """Whether Opacus takes per-sample gradients of any of these factors."""
    return any(hasattr(factor, "_forward_counter") for factor in factors)


class BlockWarmup:
    """Multiply learning rates at the start of each block, just around the optimizer's own step.

    The scheduler's learning rate is put back afterwards: schedulers that compute the next rate from
    the present one must not see the factor.
    """

    def __init__(
        self, optimizer: Any, factors: list[nn.Parameter], factor: Callable[[], float]
    ) -> None:
        ids = {id(p) for p in factors}
        target = moving(optimizer)
        self._groups = [g for g in target.param_groups if any(id(p) in ids for p in g["params"])]
        self._factor = factor
        self._before: list[float | Tensor] = []
        self._handles = [
            target.register_step_pre_hook(self._lower),
            target.register_step_post_hook(self._restore),
        ]

    def _lower(self, *_: Any) -> None:
        self._before = [g["lr"] for g in self._groups]
        factor = self._factor()
        for group in self._groups:
            group["lr"] = group["lr"] * factor

    def _restore(self, *_: Any) -> None:
        for group, lr in zip(self._groups, self._before, strict=True):
            group["lr"] = lr

    def remove(self) -> None:
        """Take the hooks away."""
        for handle in self._handles:
            handle.remove()


SGD_SETTINGS = ("momentum", "weight_decay", "nesterov", "maximize")


def kind_of(optimizer: Any, group: dict[str, Any]) -> dict[str, Fact]:
    """The facts of a step: the optimizer's name, and for torch's SGD what makes it more than that."""
    kind = type(optimizer)
    if kind is torch.optim.SGD:
        return {"optimizer": "SGD"} | {name: _plain(group.get(name, 0)) for name in SGD_SETTINGS}
    known = kind.__module__.startswith("torch.optim") and kind.__name__ != "SGD"
    return {"optimizer": kind.__name__ if known else f"{kind.__module__}.{kind.__qualname__}"}


def _plain(value: Any) -> bool | float:
    return value if isinstance(value, bool) else float(value)
