"""RepAdamW: the merged trajectory of AdamW on every branch, exactly."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from surefoot._numerics.arguments import checked
from surefoot._numerics.checks import check_choice
from surefoot._numerics.shown import shown
from surefoot.record import Record
from surefoot.reparam._optimizer.facts import Recorded, Watched
from surefoot.reparam._optimizer.parameters import (
    Params,
    by_parameter,
    check_gradients,
    labels,
    split_names,
)

Variant = Literal["exact", "authors"]
MOMENTS = ("exp_avg", "exp_avg_sq")


@checked
class RepAdamW(Recorded, torch.optim.Optimizer):
    """AdamW on a plain network that follows AdamW on the multi-branch one (derived here).

    A branch sees the gradient s_j g and normalises it, so merged
    W <- (1 - lr wd) W - lr sum_j S_j^2 m / (|S_j| sqrt(v) + eps), with the bias-corrected moments m, v of
    the *unmultiplied* gradient and S_j = E_j(s_j). Where the denominator is 0 the term is 0.

    Parameters
    ----------
    params
        As for `RepSGD`; parameters without scales: plain AdamW.
    lr, betas, eps, weight_decay
        As in `torch.optim.AdamW`.
    scales
        {parameter or name: [S_1, ..., S_B]}, as `branch_scales(model)` makes them: signed, of the
        parameter's shape, 0 outside the branch, 1 for an identity.
    variant
        "authors": their code's rule, gradient and update both times sum_j S_j; it follows the branches
        only approximately, and not at all with negative scales.
    record, seed
        As for `RepSGD`.

    Raises
    ------
    ValueError
        Settings out of range; scales that fit no parameter; a sparse gradient (at the step).
    NonFiniteError
        A gradient holds NaN or infinity (at the step); the parameter is named.
    """

    def __init__(
        self,
        params: Params,
        lr: float = 1e-3,
        *,
        scales: Mapping[Any, Sequence[Tensor]] | None = None,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        variant: Variant = "exact",
        record: Record | None = None,
        seed: int = 0,
    ) -> None:
        groups, names = split_names(params)
        defaults = {
            "lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "variant": variant,
            "steps": 0,
        }  # fmt: skip
        super().__init__(groups, defaults)
        if not any(group["params"] for group in self.param_groups):
            raise ValueError("params must hold at least one tensor, got none")
        self._names, self._watched = names, Watched(record, seed)
        known = labels(self.param_groups, names)
        parameters = [p for group in self.param_groups for p in group["params"]]
        found = by_parameter(scales or {}, parameters, names, "scales")
        for parameter, parts in found.items():
            for part in parts:
                if part.shape != parameter.shape or not bool(torch.isfinite(part).all()):
                    raise ValueError(
                        f"the scales of {known[parameter]} must be finite and of shape "
                        f"{tuple(parameter.shape)}, got {tuple(part.shape)}"
                    )
            stacked = torch.stack(list(parts)).detach()
            self.state[parameter]["branch_scales"] = stacked.to(parameter, copy=True)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group without scales: plain AdamW."""
        [plain], names = split_names([param_group])
        _check({**self.defaults, **plain})
        super().add_param_group(plain)
        self.__dict__.setdefault("_names", {}).update(names)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.__dict__.setdefault("_names", {})
        self.__dict__.setdefault("_watched", Watched(None, 0))

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_names": self._names, "_watched": self._watched}

    @property
    def client_rule(self) -> str:
        """Its rule by the name that `equivalence_holds` has for it."""
        authors = any(group["variant"] == "authors" for group in self.param_groups)
        return "rep_adamw_authors" if authors else "rep_adamw"

    def load_state_dict(self, state_dict: Any) -> None:
        """Load a state; where it has no scales (a plain AdamW's state), the present ones stay."""
        before = {p: s["branch_scales"] for p, s in self.state.items() if "branch_scales" in s}
        super().load_state_dict(state_dict)
        self._load_moments(state_dict)
        for parameter, scales in before.items():
            self.state[parameter].setdefault("branch_scales", scales)
        for group in self.param_groups:
            for name, value in self.defaults.items():
                group.setdefault(name, value)
        self._watched.changed()

    def _load_moments(self, state_dict: Any) -> None:
        """Moments as they were stored: torch brings them to the parameter's dtype, be it of 16 bits."""
        ids = [i for group in state_dict["param_groups"] for i in group["params"]]
        parameters = [p for group in self.param_groups for p in group["params"]]
        for i, parameter in zip(ids, parameters, strict=True):
            stored = state_dict["state"].get(i, {})
            for name in (n for n in MOMENTS if n in stored):
                moment = stored[name].to(parameter.device, _exact(parameter), copy=True)
                self.state[parameter][name] = moment

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step; `p.grad` stays as it was."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        known = labels(self.param_groups, self._names)
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            for parameter in parameters:
                if parameter.grad.is_sparse:
                    raise ValueError(
                        f"{known[parameter]} has a sparse gradient; RepAdamW takes dense ones"
                    )
            check_gradients(parameters, [p.grad for p in parameters], known, group["steps"])
            group["steps"] += 1
            for parameter in parameters:
                self._step_one(parameter, group)
        self._watched.stepped(self, max(group["steps"] for group in self.param_groups) - 1)
        return loss

    def _step_one(self, parameter: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        scales: Tensor | None = state.get("branch_scales")
        if scales is not None and (
            scales.dtype != parameter.dtype or scales.device != parameter.device
        ):
            scales = state["branch_scales"] = scales.to(parameter)
        gradient = parameter.grad
        assert gradient is not None
        gradient = gradient.to(_exact(parameter))
        authors = group["variant"] == "authors" and scales is not None
        if authors:
            assert scales is not None
            gradient = gradient * scales.sum(0)
        if "exp_avg" not in state:
            state["step"] = 0
            for name in MOMENTS:
                state[name] = torch.zeros_like(parameter, dtype=_exact(parameter))
        state["step"] = int(state["step"]) + 1
        beta1, beta2 = group["betas"]
        first, second = state["exp_avg"], state["exp_avg_sq"]
        first.lerp_(gradient, 1 - beta1)
        second.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        mean = first / (1 - beta1 ** state["step"])
        root = (second / (1 - beta2 ** state["step"])).sqrt_()
        if scales is None:
            update = _ratio(mean, root + group["eps"])
        elif authors:
            update = _ratio(mean, root + group["eps"]) * scales.sum(0)
        else:
            update = torch.zeros_like(mean)
            for scale in scales.to(mean.dtype):
                update += _ratio(scale.square() * mean, scale.abs() * root + group["eps"])
        # A parameter of 16 bits is rounded once a step, not once an operation.
        moved = parameter if update.dtype == parameter.dtype else parameter.to(update.dtype)
        moved.mul_(1 - group["lr"] * group["weight_decay"])
        moved.add_(update, alpha=-group["lr"])
        if moved is not parameter:
            parameter.copy_(moved)


def _exact(parameter: Tensor) -> torch.dtype:
    """What moments are kept in: a squared gradient below 2e-4 is 0 in float16, beta2 is 1 in bfloat16."""
    return torch.float32 if parameter.element_size() < 4 else parameter.dtype


def _check(group: dict[str, Any]) -> None:
    check_choice("variant", group["variant"], get_args(Variant))
    for name in ("lr", "eps", "weight_decay"):
        if not 0 <= group[name] < float("inf"):
            raise ValueError(f"{name} must be at least 0 and finite, got {group[name]}")
    if not all(0 <= b < 1 for b in group["betas"]):
        raise ValueError(f"betas must be in [0, 1), got {group['betas']}")
    if not all(isinstance(p, Tensor) for p in group["params"]):
        raise TypeError(f"params must be tensors, got {shown(group['params'])}")
    if any(p.is_complex() for p in group["params"]):
        raise TypeError(
            "RepAdamW takes real parameters, got a complex one: give torch.view_as_real of it"
        )


def _ratio(top: Tensor, bottom: Tensor) -> Tensor:
    """top / bottom, and 0 where bottom is: with eps = 0 a branch of scale 0 contributes nothing."""
    return torch.where(bottom == 0, torch.zeros_like(top), top / bottom)
