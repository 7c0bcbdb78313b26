"""AGNES and Nesterov's accelerated gradient (NAG) as drop-in torch optimizers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from surefoot._numerics.arguments import checked
from surefoot.errors import warn
from surefoot.guarantee import Guarantee
from surefoot.nesterov._optimizer.hyperparameters import (
    StepForm,
    change_of_unit,
    check_group,
    copied,
    on_tensors,
    velocity_scale,
)
from surefoot.nesterov._optimizer.lookahead import LookAhead
from surefoot.nesterov._optimizer.update import foreach_step, fused_step, fused_works, single_step
from surefoot.nesterov.guarantee import accelerated_rate
from surefoot.nesterov.parameters import agnes_parameters, nag_parameters


@checked
class AGNES(LookAhead):
    """Accelerated descent whose gradient step and velocity step are set apart.

    Two-step form, from rest: y_n = x_n + alpha v_n; x_{n+1} = y_n - eta g(y_n);
    v_{n+1} = rho (v_n - g(y_n)). The parameters hold y_n, as in `torch.optim.SGD`; the guarantee
    is about x_n, see `iterate`, `finalize` and `resume`. alpha = eta is Nesterov's method, alpha = 0 is SGD
    with step eta, eta = 0 is heavy ball up to indexing.

    Parameters
    ----------
    params
        Parameters or parameter groups; each group may have its own hyperparameters.
    lr
        alpha, the step along the velocity: the primary learning rate.
    correction
        eta, the step along the gradient; largest stable is best.
    momentum
        rho in [0, 1).
    weight_decay
        Added to the gradient as weight_decay * p, without changing `p.grad`.
    maximize
        Ascend.
    foreach, fused
        Which implementation; by default the fused kernel where it works, else foreach, else a loop.
        All keep one buffer per parameter with the same meaning.
    capturable
        Take hyperparameters given as tensors without reading them on the host; whether `lr` was
        moved alone is then not looked at.

    Raises
    ------
    ValueError
        A hyperparameter out of its range.
    RuntimeError
        A sparse gradient.

    Notes
    -----
    Source: arXiv 2302.05515, Section 3; the one-pass form is derived in `update`. Differences from
    the authors' code: `p.grad` is never changed by weight decay, and every constant is a group entry.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-3,
        correction: float | Tensor = 1e-2,
        momentum: float = 0.99,
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        fused: bool | None = None,
        capturable: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "correction": correction,
            "momentum": momentum,
            "weight_decay": weight_decay,
            "maximize": maximize,
            "foreach": foreach,
            "fused": fused,
            "capturable": capturable,
        }
        super().__init__(params, defaults)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group; its hyperparameters are checked as in the constructor."""
        # Before it is there: whoever handles the error goes on without it.
        check_group({**self.defaults, **param_group})
        super().add_param_group(param_group)
        for kind in {(p.device.type, p.dtype) for p in self.param_groups[-1]["params"]}:
            fused_works(*kind)  # tried now, as a captured graph allows no trial

    @classmethod
    def from_constants(
        cls,
        params: ParamsT,
        *,
        mu: float,
        L: float,
        sigma_mult: float = 0.0,
        eps: float = 0.0,
        eta: float | None = None,
        **kw: Any,
    ) -> AGNES:
        """The optimizer whose rate is promised for measured constants, see `agnes_parameters`.

        Parameters
        ----------
        params
            Parameters or parameter groups.
        mu, L
            Strong aiming and smoothness of f.
        sigma_mult
            sigma_m with E|g - grad f|^2 <= sigma_a^2 + sigma_m^2 |grad f|^2.
        eps
            The Hessian is at least -eps on the segments from x_n to y_n.
        eta
            The gradient step; None: the largest that is admissible.
        kw
            The other arguments of the constructor.
        """
        c = agnes_parameters(mu, L, sigma_mult, eta, eps)
        return cls(params, lr=c.alpha, correction=c.eta, momentum=c.rho, **kw)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        for group in self.param_groups:
            group.setdefault("foreach", None)
            group.setdefault("fused", None)
            group.setdefault("capturable", False)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step; `closure` re-evaluates the loss with gradients enabled."""
        self._refuse_iterate()
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        skipped = False
        for index, group in enumerate(self.param_groups):
            self._tie(group)
            self._note(index, group)
            params, grads, buffers = self._gather(group)
            skipped |= len(params) < len(group["params"])
            if params:
                form = StepForm.of(group["lr"], group["correction"], group["momentum"])
                self._follow(group, form)
                self._update(group, form, params, grads, buffers)
        self._count(skipped)
        return loss

    def _facts_of(self, group: dict[str, Any]) -> dict[str, Any]:
        facts = {
            "weight_decay": float(group["weight_decay"]),
            "decoupled": False,
            "maximize": bool(group["maximize"]),
        }
        if not (group["capturable"] and on_tensors(group)):
            # Nobody reads tensors of a captured graph, so that nobody knows whether they changed.
            facts |= _named(group) | {"hyperparameters_changed": False}
        for kind in sorted({(p.device.type, str(p.dtype)) for p in group["params"]}):
            dtype = getattr(torch, kind[1].removeprefix("torch."))
            own = "single" if on_tensors(group) else self._mode(group, kind[0], dtype)
            self.record.note(implementation=own)
        return facts

    _scaled = False

    def _rate(self, **constants: Any) -> Guarantee:
        return accelerated_rate(**constants)

    def _tie(self, group: dict[str, Any]) -> None:
        """For NAG: correction follows lr."""

    def _gather(self, group: dict[str, Any]) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        params: list[Tensor] = []
        grads: list[Tensor] = []
        buffers: list[Tensor] = []
        for i, p in enumerate(group["params"]):
            grad = p.grad
            if grad is None:
                continue
            if grad.is_sparse:
                raise RuntimeError(
                    f"parameter {i} has a sparse gradient; accelerated steps are dense, use "
                    "sparse=False in its layer"
                )
            state = self.state[p]
            if "momentum_buffer" not in state:
                state["momentum_buffer"] = torch.zeros_like(p, memory_format=torch.preserve_format)
            params.append(p)
            grads.append(grad)
            buffers.append(state["momentum_buffer"])
        return params, grads, buffers

    def _update(
        self,
        group: dict[str, Any],
        form: StepForm,
        params: list[Tensor],
        grads: list[Tensor],
        buffers: list[Tensor],
    ) -> None:
        decay, maximize = group["weight_decay"], group["maximize"]
        if on_tensors(group) or torch.compiler.is_compiling():
            single_step(params, grads, buffers, form, decay, maximize)
            return
        alike = self._group_tensors_by_device_and_dtype(cast(Any, [params, grads, buffers]))
        for (device, dtype), ((p, g, u), _) in cast(dict[Any, Any], alike).items():
            mode = self._mode(group, device.type, dtype)
            if mode == "fused":
                scale, inf = getattr(self, "grad_scale", None), getattr(self, "found_inf", None)
                if inf is not None and not self._scaled:
                    # A step that GradScaler skips changes nothing, and no one is told.
                    self._scaled = True
                    self.record.note(may_skip_steps=True)
                fused_step(
                    p,
                    g,
                    u,
                    form,
                    decay,
                    maximize,
                    grad_scale=None if scale is None else scale.to(device),
                    found_inf=None if inf is None else inf.to(device),
                )
            else:
                step = foreach_step if mode == "foreach" else single_step
                step(p, g, u, form, decay, maximize)

    @staticmethod
    def _mode(group: dict[str, Any], device_type: str, dtype: torch.dtype) -> str:
        fused, foreach = group["fused"], group["foreach"]
        wanted = fused or (fused is None and not foreach)
        # The kernel's velocity step is eta rho: heavy ball (eta = 0) has no such form.
        if wanted and group["correction"] != 0 and fused_works(device_type, dtype):
            return "fused"
        return "single" if foreach is False or dtype.is_complex else "foreach"

    @property
    def _step_supports_amp_scaling(self) -> bool:
        # GradScaler hands its scale to a step that takes it, and else unscales and skips by itself.
        # Looked at anew each time: loading a state or moving a model may change the implementation.
        return all(
            not on_tensors(group)
            and all(
                self._mode(group, *kind) == "fused"
                for kind in {(p.device.type, p.dtype) for p in group["params"]}
            )
            for group in self.param_groups
        )

    def _follow(self, group: dict[str, Any], k: StepForm) -> None:
        """Keep the velocity when hyperparameters change: the buffer is v in units of theirs."""
        now = (group["lr"], group["correction"], group["momentum"])
        last = group.get("last")
        if last is None:
            group["last"] = copied(now)
            return
        unreadable = group["capturable"] or torch.compiler.is_compiling()
        if not (unreadable and on_tensors(group)):
            if now == last:
                return
            self._warn_of_lr_alone(group, now, last)
            if not torch.compiler.is_compiling():
                self.record.note(hyperparameters_changed=True)
                self.record.update(0, self._steps, _named(group))
        factor = change_of_unit(StepForm.of(*last), k)
        if isinstance(factor, Tensor) or factor != 1:
            # Also those without a gradient now: all buffers of a group share one unit.
            for p in group["params"]:
                if "momentum_buffer" in self.state.get(p, {}):
                    self.state[p]["momentum_buffer"].mul_(factor)
        group["last"] = copied(now, last)

    _moved = (
        "alpha moved without eta and rho: `lr` of AGNES is alpha alone, and the rate is promised for "
        "the three together; scale `correction` by the same factor, or use NAGSchedule"
    )

    def _warn_of_lr_alone(
        self, group: dict[str, Any], now: tuple[Any, ...], last: tuple[Any, ...]
    ) -> None:
        if group.get("scheduled") or group.get("warned") or now[0] == last[0]:
            return
        if now[2] == last[2] and self._eta_stayed(now, last):
            for each in self.param_groups:
                each["warned"] = True
            warn(self._moved)

    @staticmethod
    def _eta_stayed(now: tuple[Any, ...], last: tuple[Any, ...]) -> bool:
        return bool(now[1] == last[1])

    @torch.no_grad()
    def _shift(self, sign: int) -> None:
        for group in self.param_groups:
            if "last" not in group:
                continue
            c = StepForm.of(*group["last"]).c
            for p in group["params"]:
                if "momentum_buffer" in self.state.get(p, {}):
                    p.add_(self.state[p]["momentum_buffer"] * c, alpha=sign)

    def _rest(self) -> None:
        for state in self.state.values():
            if "momentum_buffer" in state:
                state["momentum_buffer"].zero_()

    def velocity(self, p: Tensor) -> Tensor | None:
        """v_n of a parameter as of the last step; None before its first one."""
        if "momentum_buffer" not in self.state.get(p, {}):
            return None
        group = next(g for g in self.param_groups if any(q is p for q in g["params"]))
        scale = velocity_scale(StepForm.of(*group["last"]))
        velocity: Tensor = self.state[p]["momentum_buffer"] * scale
        return velocity


def _named(group: dict[str, Any]) -> dict[str, float]:
    """The hyperparameters of a group under the paper's names."""
    names = {"eta": "correction", "alpha": "lr", "rho": "momentum"}
    return {name: float(group[key]) for name, key in names.items()}


@checked
class NAG(AGNES):
    """Nesterov's accelerated gradient: AGNES whose correction is tied to its learning rate.

    The same iterates as `torch.optim.SGD(lr, momentum, nesterov=True)`, from rest.

    Parameters
    ----------
    params
        Parameters or parameter groups; each group may have its own hyperparameters.
    lr
        eta = alpha, at most 1/L.
    momentum
        rho; (1 - s)/(1 + s) with s = sqrt(mu eta) is what the rate is promised for.
    weight_decay
        Added to the gradient as weight_decay * p, without changing `p.grad`.
    kw
        `maximize`, `foreach`, `fused` and `capturable` of `AGNES`.

    Notes
    -----
    Source: in the setting of arXiv 2410.08395; constants derived here.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor,
        momentum: float,
        weight_decay: float = 0.0,
        **kw: Any,
    ) -> None:
        super().__init__(params, lr, lr, momentum, weight_decay, **kw)

    @classmethod
    def from_constants(
        cls,
        params: ParamsT,
        *,
        mu: float,
        L: float,
        sigma_mult: float = 0.0,
        eps: float = 0.0,
        eta: float | None = None,
        **kw: Any,
    ) -> NAG:
        """NAG for measured constants; warns where the noise is more than NAG tolerates.

        Parameters
        ----------
        params
            Parameters or parameter groups.
        mu, L
            Strong aiming and smoothness of f.
        sigma_mult
            sigma_m with E|g - grad f|^2 <= sigma_a^2 + sigma_m^2 |grad f|^2.
        eps
            The Hessian is at least -eps on the segments from x_n to y_n.
        eta
            The gradient step; None: the largest that is admissible.
        kw
            The other arguments of the constructor.
        """
        c = nag_parameters(mu, L, sigma_mult, eta, eps)
        return cls(params, lr=c.eta, momentum=c.rho, **kw)

    def _tie(self, group: dict[str, Any]) -> None:
        group["correction"] = group["lr"]

    _moved = (
        "alpha moved without rho: the rate of NAG is promised for lr and momentum together; use "
        "NAGSchedule, or set momentum = (1 - s)/(1 + s) with s = sqrt(mu lr) as well"
    )

    @staticmethod
    def _eta_stayed(now: tuple[Any, ...], last: tuple[Any, ...]) -> bool:
        return True
