"""Gradient multipliers for an optimiser that is there already."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from surefoot._numerics.arguments import checked
from surefoot.record import Record
from surefoot.reparam._optimizer.facts import MULT, Recorded, Watched, client_rule
from surefoot.reparam._optimizer.parameters import by_parameter, check_mult, labels

LINEAR = (torch.optim.SGD,)


class Wrapped(Recorded, torch.optim.Optimizer):
    """Another optimiser whose gradients are multiplied before each of its steps.

    It shares that optimiser's groups and state, so schedulers, `state_dict` and pickle see one thing.
    A coupled weight decay of the inner optimiser is added after the multiplier, as it must be.
    """

    def __init__(
        self, inner: torch.optim.Optimizer, record: Record | None = None, seed: int = 0
    ) -> None:
        self.inner = inner
        self._watched = Watched(record, seed)
        # What schedulers and `zero_grad` look for on any optimiser.
        super().__init__(inner.param_groups, dict(inner.defaults))
        self.param_groups, self.state = inner.param_groups, inner.state

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.inner!r})"

    def __getstate__(self) -> dict[str, Any]:
        # Without its multipliers: the optimizer inside may take any state of a parameter for its own.
        bare = type(self.inner).__new__(type(self.inner))
        own = defaultdict(dict, _without_mults(self.inner.state))
        bare.__setstate__({**self.inner.__getstate__(), "state": own})
        return {"inner": bare, "mults": self._mults(), "_watched": self._watched}

    def __setstate__(self, state: dict[str, Any]) -> None:
        Wrapped.__init__(self, state["inner"])
        self._watched = state.get("_watched", self._watched)
        for parameter, mult in state.get("mults", {}).items():
            self.state[parameter][MULT] = mult

    def _mults(self) -> dict[Tensor, Tensor]:
        return {p: s[MULT] for p, s in self.inner.state.items() if MULT in s}

    @property
    def client_rule(self) -> str:
        """The rule of the optimizer inside by the name that `equivalence_holds` has for it."""
        return client_rule(self.inner)

    @property
    def shown_name(self) -> str:
        """Its name in the record."""
        return f"{type(self.inner).__name__} with multipliers"

    def load_state_dict(self, state_dict: Any) -> None:
        """Load a state; where it has no multiplier, the present one stays."""
        mults = self._mults()
        ids = [i for group in state_dict["param_groups"] for i in group["params"]]
        stored = state_dict["state"]
        self.inner.load_state_dict({**state_dict, "state": _without_mults(stored)})
        self.param_groups, self.state = self.inner.param_groups, self.inner.state
        parameters = [p for group in self.param_groups for p in group["params"]]
        for i, parameter in zip(ids, parameters, strict=True):
            if MULT in stored.get(i, {}):
                mults[parameter] = stored[i][MULT].to(parameter, copy=True)
        for parameter, mult in mults.items():
            self.state[parameter][MULT] = mult
        self._watched.changed()

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
        self._watched.stepped(self)
        return loss


def _without_mults(states: Mapping[Any, Mapping[str, Any]]) -> dict[Any, dict[str, Any]]:
    """The state of an optimizer as it would be without multipliers."""
    bare = {p: {k: v for k, v in state.items() if k != MULT} for p, state in states.items()}
    return {p: state for p, state in bare.items() if state}


@checked
def wrap(
    optimizer: torch.optim.Optimizer,
    mults: Mapping[Any, Tensor],
    *,
    force: bool = False,
    record: Record | None = None,
    seed: int = 0,
) -> Wrapped:
    """Give an optimiser gradient multipliers; the result is used in its place.

    Parameters
    ----------
    optimizer
        A `torch.optim.SGD`, or another one with `force`.
    mults
        M, {parameter: tensor} or {name: tensor} where the optimiser was given named parameters.
    force
        Take an optimiser that is not known to be linear in its gradients; its certificates then say
        NOT_PROMISED, or that nothing is known of it.
    record, seed
        As for `RepSGD`.

    Returns
    -------
    Wrapped
        An optimiser that shares groups and state with the given one.

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
    return Wrapped(optimizer, record, seed)
