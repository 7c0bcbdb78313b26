"""Gradient multipliers for an optimiser that is there already."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from surefoot.reparam._optimizer.parameters import by_parameter, check_mult, labels
from surefoot.reparam.optimizer import MULT

LINEAR = (torch.optim.SGD,)


class Wrapped(torch.optim.Optimizer):
    """Another optimiser whose gradients are multiplied before each of its steps.

    It shares that optimiser's groups and state, so schedulers, `state_dict` and pickle see one thing.
    A coupled weight decay of the inner optimiser is added after the multiplier, as it must be.
    """

    def __init__(self, inner: torch.optim.Optimizer) -> None:
        self.inner = inner
        # What schedulers and `zero_grad` look for on any optimiser.
        super().__init__(inner.param_groups, dict(inner.defaults))
        self.param_groups, self.state = inner.param_groups, inner.state

    def __getstate__(self) -> dict[str, Any]:
        return {"inner": self.inner}

    def __setstate__(self, state: dict[str, Any]) -> None:
        Wrapped.__init__(self, state["inner"])

    def load_state_dict(self, state_dict: Any) -> None:
        """Load a state; where it has no multiplier, the present one stays."""
        before = {p: s[MULT] for p, s in self.inner.state.items() if MULT in s}
        self.inner.load_state_dict(state_dict)
        for parameter, mult in before.items():
            self.inner.state[parameter].setdefault(MULT, mult)
        self.param_groups, self.state = self.inner.param_groups, self.inner.state

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Multiply, step, put the gradients back."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        given: list[tuple[Tensor, Tensor, Tensor]] = []
        state = self.inner.state
        for group in self.inner.param_groups:
            for parameter in group["params"]:
                mult = state[parameter].get(MULT)
                if parameter.grad is None or mult is None:
                    continue
                given.append((parameter, parameter.grad, mult))
                parameter.grad = parameter.grad * mult.to(parameter)
                # Some optimisers take an empty state for a first step, and any other for a later one.
                del state[parameter][MULT]
        try:
            self.inner.step()
        finally:
            for parameter, gradient, mult in given:
                parameter.grad = gradient
                state[parameter][MULT] = mult
        return loss


def wrap(
    optimizer: torch.optim.Optimizer, mults: Mapping[Any, Tensor], *, force: bool = False
) -> Wrapped:
    """Give an optimiser gradient multipliers; the result is used in its place.

    Raises
    ------
    TypeError
        The optimiser is not known to be linear in its gradients, so the plain network would not follow
        the multi-branch one; `force=True` does it all the same. For Adam there is `RepAdamW`.
    ValueError
        Multipliers keyed by names where the optimiser has none, or of a wrong shape.
    """
    if type(optimizer) not in LINEAR and not force:
        raise TypeError(
            f"{type(optimizer).__name__} is not known to be linear in its gradients: multiplied "
            "gradients do not make it follow the branches. Use RepSGD, RepAdamW, or force=True"
        )
    names = {
        p: n
        for group in optimizer.param_groups
        for n, p in zip(group.get("param_names", ()), group["params"], strict=False)
    }
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    known = labels(optimizer.param_groups, names)
    found = by_parameter(mults, parameters, names, "mults")
    for parameter, mult in found.items():
        optimizer.state[parameter][MULT] = check_mult(mult, parameter, known[parameter])
    return Wrapped(optimizer)
