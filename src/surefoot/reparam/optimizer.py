"""RepSGD: stochastic gradient descent whose gradients carry constant multipliers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from surefoot._numerics.arguments import checked
from surefoot.record import Record
from surefoot.reparam._optimizer.facts import MULT, Recorded, Watched
from surefoot.reparam._optimizer.parameters import (
    Params,
    by_parameter,
    check_gradients,
    check_mult,
    labels,
    split_names,
)

__all__ = ["MULT", "RepSGD"]


@checked
class RepSGD(Recorded, torch.optim.Optimizer):
    r"""SGD on a plain network that follows the multi-branch one [arXiv 2409.15898; authors' code].

    In this order: g <- grad * M; g <- g + wd W; g <- g + mu (W - W_0); the momentum buffer as in
    `torch.optim.SGD` (first buf = g, then buf = momentum buf + (1 - dampening) g; Nesterov takes
    g + momentum buf); W <- W - lr g. The multiplier comes before weight decay: merged, a decayed branch
    is a decayed kernel (factor 1), while its gradient is scaled twice (factor s^2).

    Parameters
    ----------
    params
        Parameters, groups, or `model.named_parameters()`; parameters without a multiplier: plain SGD.
    lr
        The learning rate.
    grad_mults
        M, {parameter: tensor} or {name: tensor}, each of its parameter's shape. They live in
        `state[p]["grad_mult"]`, so `state_dict`, `deepcopy` and pickle keep them; a loaded state's
        multipliers replace those given here, and follow the parameter's dtype and device.
    momentum, weight_decay, nesterov, dampening
        As in `torch.optim.SGD`.
    proximal_mu
        FedProx's mu: adds mu (W - W at construction).
    record
        Where its facts and the column "lr" go, the largest rate of the groups at each step; None: a
        record of its own, which `record` is. It is no part of `state_dict`.
    seed
        The run's seed in that record.

    Raises
    ------
    ValueError
        Settings out of range; multipliers that fit no parameter; a sparse gradient (at the step).
    NonFiniteError
        A gradient holds NaN or infinity (at the step); the parameter is named.
    """

    def __init__(
        self,
        params: Params,
        lr: float,
        *,
        grad_mults: Mapping[Any, Tensor] | None = None,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        dampening: float = 0.0,
        proximal_mu: float = 0.0,
        record: Record | None = None,
        seed: int = 0,
    ) -> None:
        groups, names = split_names(params)
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "weight_decay": weight_decay,
            "nesterov": nesterov,
            "dampening": dampening,
            "proximal_mu": proximal_mu,
            "steps": 0,
        }
        super().__init__(groups, defaults)
        if not any(group["params"] for group in self.param_groups):
            raise ValueError("params must hold at least one tensor, got none")
        self._names, self._watched = names, Watched(record, seed)
        parameters = [p for group in self.param_groups for p in group["params"]]
        known = labels(self.param_groups, names)
        found = by_parameter(grad_mults or {}, parameters, names, "grad_mults")
        for parameter, mult in found.items():
            self.state[parameter][MULT] = check_mult(mult, parameter, known[parameter])

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group without multipliers; its proximal anchor is where its parameters are now."""
        [plain], names = split_names([param_group])
        _check({**self.defaults, **plain})
        super().add_param_group(plain)
        self.__dict__.setdefault("_names", {}).update(names)
        if self.param_groups[-1]["proximal_mu"]:
            for parameter in self.param_groups[-1]["params"]:
                self.state[parameter]["anchor"] = parameter.detach().clone()

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.__dict__.setdefault("_names", {})
        self.__dict__.setdefault("_watched", Watched(None, 0))

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_names": self._names, "_watched": self._watched}

    @property
    def client_rule(self) -> str:
        """Its rule by the name that `equivalence_holds` has for it."""
        return "sgd"

    def load_state_dict(self, state_dict: Any) -> None:
        """Load a state; where it has no multiplier (a plain SGD's state), the present one stays."""
        before = {p: s[MULT] for p, s in self.state.items() if MULT in s}
        anchors = {p: s["anchor"] for p, s in self.state.items() if "anchor" in s}
        super().load_state_dict(state_dict)
        for parameter, mult in before.items():
            self.state[parameter].setdefault(MULT, mult)
        for parameter, anchor in anchors.items():
            self.state[parameter].setdefault("anchor", anchor)
        for group in self.param_groups:
            for name, value in self.defaults.items():
                group.setdefault(name, value)
        self._watched.changed()

    def grad_mult(self, parameter: Tensor) -> Tensor | None:
        """M of a parameter in its present dtype and device, or None."""
        mult: Tensor | None = self.state[parameter].get(MULT) if parameter in self.state else None
        if mult is not None and (mult.dtype != parameter.dtype or mult.device != parameter.device):
            mult = mult.to(device=parameter.device, dtype=parameter.dtype)
            self.state[parameter][MULT] = mult
        return mult

    def _note_noise(self) -> None:
        """Opacus leaves its sum beside the gradient: multiplied here, its noise is not the branches'."""
        for group in self.param_groups:
            for p in group["params"]:
                if getattr(p, "summed_grad", None) is not None and MULT in self.state.get(p, {}):
                    self._watched.note(
                        clipping="per example", noised="merged gradients", clip="unlike"
                    )
                    return

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step; `p.grad` stays as it was."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        known = labels(self.param_groups, self._names)
        for group in self.param_groups:
            step_group(self, group, known)
        self._note_noise()
        self._watched.stepped(self, max(group["steps"] for group in self.param_groups) - 1)
        return loss


def step_group(optimizer: RepSGD, group: dict[str, Any], known: Mapping[Tensor, str]) -> None:
    """The step of one group, with multi-tensor operations; frozen parameters are skipped."""
    parameters = [p for p in group["params"] if p.grad is not None]
    gradients: list[Tensor] = []
    for parameter in parameters:
        assert parameter.grad is not None
        if parameter.grad.is_sparse:
            raise ValueError(f"{known[parameter]} has a sparse gradient; RepSGD takes dense ones")
        gradients.append(parameter.grad)
    check_gradients(parameters, gradients, known, group["steps"])
    group["steps"] += 1
    if not parameters:
        return
    updates = list(gradients)
    owned = [False] * len(updates)  # whether an update is storage of ours or still p.grad
    mults = {i: m for i, p in enumerate(parameters) if (m := optimizer.grad_mult(p)) is not None}
    if mults:
        made = torch._foreach_mul([gradients[i] for i in mults], list(mults.values()))
        for i, update in zip(mults, made, strict=True):
            updates[i], owned[i] = update, True
    decay, mu = group["weight_decay"], group["proximal_mu"]
    if decay or mu:
        coupled = torch._foreach_mul(parameters, decay + mu)
        if mu:
            anchors = [optimizer.state[p]["anchor"].to(p) for p in parameters]
            torch._foreach_sub_(coupled, anchors, alpha=mu)
        torch._foreach_add_(coupled, updates)
        updates, owned = list(coupled), [True] * len(updates)
    if group["momentum"]:
        updates = _momentum(optimizer, group, parameters, updates, owned)
    torch._foreach_add_(parameters, updates, alpha=-group["lr"])


def _momentum(
    optimizer: RepSGD,
    group: dict[str, Any],
    parameters: list[Tensor],
    updates: list[Tensor],
    owned: list[bool],
) -> list[Tensor]:
    buffers: list[Tensor] = []
    old: list[Tensor] = []
    old_updates: list[Tensor] = []
    for parameter, update, own in zip(parameters, updates, owned, strict=True):
        state = optimizer.state[parameter]
        buffer = state.get("momentum_buffer")
        if buffer is None:
            buffer = state["momentum_buffer"] = update if own else update.clone()
        else:
            if buffer.dtype != parameter.dtype or buffer.device != parameter.device:
                buffer = state["momentum_buffer"] = buffer.to(parameter)
            old.append(buffer)
            old_updates.append(update)
        buffers.append(buffer)
    if old:
        torch._foreach_mul_(old, group["momentum"])
        torch._foreach_add_(old, old_updates, alpha=1 - group["dampening"])
    if not group["nesterov"]:
        return buffers
    return list(torch._foreach_add(updates, buffers, alpha=group["momentum"]))


def _check(group: dict[str, Any]) -> None:
    for name in ("lr", "momentum", "weight_decay", "proximal_mu"):
        if not 0 <= group[name] < float("inf"):
            raise ValueError(f"{name} must be at least 0 and finite, got {group[name]}")
    if group["momentum"] >= 1:
        raise ValueError(f"momentum must be below 1, got {group['momentum']}")
    if not 0 <= group["dampening"] <= 1:
        raise ValueError(f"dampening must be between 0 and 1, got {group['dampening']}")
    if group["nesterov"] and (group["momentum"] <= 0 or group["dampening"] != 0):
        raise ValueError(
            "nesterov needs momentum above 0 and dampening 0, "
            f"got {group['momentum']} and {group['dampening']}"
        )
