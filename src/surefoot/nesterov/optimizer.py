"""AGNES and Nesterov's accelerated gradient (NAG) as drop-in torch optimizers."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import isfinite
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from surefoot.nesterov.parameters import agnes_parameters, nag_parameters
from surefoot.nesterov.update import (
    Constants,
    Scalar,
    foreach_step,
    fused_step,
    fused_works,
    single_step,
    velocity_scale,
)


class AGNES(torch.optim.Optimizer):
    """Accelerated descent whose gradient step and velocity step are set apart.

    Two-step form, from rest: y_n = x_n + alpha v_n; x_{n+1} = y_n - eta g(y_n);
    v_{n+1} = rho (v_n - g(y_n)). The parameters hold y_n, as in `torch.optim.SGD`; the guarantee
    is about x_n, see `iterate` and `finalize`. alpha = eta is Nesterov's method, alpha = 0 is SGD
    with step eta, eta = 0 is heavy ball up to indexing.

    Parameters
    ----------
    params
        Parameters or parameter groups; each group may have its own constants.
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
        Which implementation; by default the fused kernel where it works, else a loop on the CPU and
        foreach on an accelerator. All keep one buffer per parameter with the same meaning.
    capturable
        Take hyperparameters given as tensors without reading them on the host.

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
        if foreach and fused:
            raise ValueError("foreach and fused cannot both be True; choose one")
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
        for group in self.param_groups:
            _check_group(group)
        # GradScaler hands its scale to a step that knows it, and unscales and skips by itself else.
        self._step_supports_amp_scaling = all(self._mode(g) == "fused" for g in self.param_groups)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group; its constants are checked as in the constructor."""
        super().add_param_group(param_group)
        _check_group(self.param_groups[-1])

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
        """The optimizer whose rate is promised for measured constants, see `agnes_parameters`."""
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
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            self._tie(group)
            params, grads, buffers = self._gather(group)
            if not params:
                continue
            constants = Constants.of(group["lr"], group["correction"], group["momentum"])
            self._follow(group, constants, buffers)
            mode = self._mode(group)
            arguments = (
                params,
                grads,
                buffers,
                constants,
                group["weight_decay"],
                group["maximize"],
            )
            if mode == "fused":
                fused_step(
                    *arguments,
                    grad_scale=getattr(self, "grad_scale", None),
                    found_inf=getattr(self, "found_inf", None),
                )
            elif mode == "foreach":
                foreach_step(*arguments)
            else:
                single_step(*arguments)
        return loss

    def _tie(self, group: dict[str, Any]) -> None:
        """For NAG: correction follows lr."""

    def _gather(self, group: dict[str, Any]) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        params: list[Tensor] = []
        grads: list[Tensor] = []
        buffers: list[Tensor] = []
        for i, p in enumerate(group["params"]):
            if p.grad is None:
                continue
            if p.grad.is_sparse:
                raise RuntimeError(
                    f"parameter {i} has a sparse gradient; accelerated steps are dense, use "
                    "sparse=False in its layer"
                )
            state = self.state[p]
            if "momentum_buffer" not in state:
                state["momentum_buffer"] = torch.zeros_like(p, memory_format=torch.preserve_format)
            params.append(p)
            grads.append(p.grad)
            buffers.append(state["momentum_buffer"])
        return params, grads, buffers

    def _follow(self, group: dict[str, Any], k: Constants, buffers: list[Tensor]) -> None:
        """Keep the velocity when constants change: u is v in units of the constants."""
        now = (group["lr"], group["correction"], group["momentum"])
        last = group.get("last")
        group["last"] = now
        if last is None or any(
            a is not b and _differs(a, b) for a, b in zip(now, last, strict=True)
        ):
            if last is None:
                return
            if not group.get("scheduled") and not group.get("warned"):
                moved = _differs(now[0], last[0])
                if moved and not _differs(now[2], last[2]) and self._only_lr(now, last):
                    group["warned"] = True
                    warnings.warn(self._moved, UserWarning, stacklevel=4)
            before = velocity_scale(last[0], Constants.of(*last))
            after = velocity_scale(now[0], k)
            if not isinstance(after, Tensor) and after == 0:
                factor: Scalar = 0.0
            else:
                factor = before / after
            for u in buffers:
                u.mul_(factor)

    _moved = (
        "alpha moved without eta and rho: `lr` of AGNES is alpha alone, and the rate is promised for "
        "the three together; scale `correction` by the same factor, or use NAGSchedule"
    )

    @staticmethod
    def _only_lr(now: tuple[Any, ...], last: tuple[Any, ...]) -> bool:
        return not _differs(now[1], last[1])

    def _mode(self, group: dict[str, Any]) -> str:
        fused, foreach = group["fused"], group["foreach"]
        numbers = not any(isinstance(group[k], Tensor) for k in ("lr", "correction", "momentum"))
        if not numbers or torch.compiler.is_compiling():
            return "single"
        fusable, accelerated, complex_ = self._kind(group)
        if (fused or (fused is None and not foreach)) and fusable and group["correction"] != 0:
            return "fused"
        if (foreach or (foreach is None and accelerated)) and not complex_:
            return "foreach"
        return "single"

    def _kind(self, group: dict[str, Any]) -> tuple[bool, bool, bool]:
        """(one pass can serve all tensors, on an accelerator, complex); looked up once a group."""
        cache: dict[int, tuple[int, tuple[bool, bool, bool]]] = self.__dict__.setdefault(
            "_kinds", {}
        )
        params = group["params"]
        known = cache.get(id(group))
        if known is not None and known[0] == len(params):
            return known[1]
        fusable = (
            all(p.is_floating_point() for p in params)
            and len({(p.device, p.dtype) for p in params}) == 1
            and fused_works(params[0].device.type)
        )
        kind = (fusable, any(p.is_cuda for p in params), any(p.is_complex() for p in params))
        cache[id(group)] = (len(params), kind)
        return kind

    @contextmanager
    def iterate(self) -> Iterator[None]:
        """The parameters temporarily hold the iterate x_n, which the guarantee is about.

        On leaving, y_n is restored bit for bit from a copy. `state_dict` says in each group which
        point is loaded; a step inside raises RuntimeError.
        """
        handle = self.register_step_pre_hook(_refuse_step)
        saved = [(p, p.detach().clone()) for g in self.param_groups for p in g["params"]]
        for group in self.param_groups:
            group["point"] = "x"
        try:
            self._to_iterate()
            yield
        finally:
            handle.remove()
            for group in self.param_groups:
                group["point"] = "y"
            with torch.no_grad():
                for p, y in saved:
                    p.copy_(y)

    def finalize(self) -> None:
        """Leave x_n in the parameters and start from rest, as at the end of training."""
        self._to_iterate()
        for group in self.param_groups:
            for p in group["params"]:
                if p in self.state:
                    self.state[p]["momentum_buffer"].zero_()

    @torch.no_grad()
    def _to_iterate(self) -> None:
        for group in self.param_groups:
            if "last" not in group:
                continue
            c = Constants.of(*group["last"]).c
            for p in group["params"]:
                if "momentum_buffer" in self.state.get(p, {}):
                    p.add_(self.state[p]["momentum_buffer"] * c)

    def velocity(self, p: Tensor) -> Tensor | None:
        """v_n of a parameter as of the last step; None before its first one."""
        if "momentum_buffer" not in self.state.get(p, {}):
            return None
        group = next(g for g in self.param_groups if any(q is p for q in g["params"]))
        scale = velocity_scale(group["last"][0], Constants.of(*group["last"]))
        velocity: Tensor = self.state[p]["momentum_buffer"] * scale
        return velocity


class NAG(AGNES):
    """Nesterov's accelerated gradient: AGNES whose correction is tied to its learning rate.

    The same iterates as `torch.optim.SGD(lr, momentum, nesterov=True)`, from rest.

    Parameters
    ----------
    lr
        eta = alpha, at most 1/L.
    momentum
        rho; (1 - s)/(1 + s) with s = sqrt(mu eta) is what the rate is promised for.

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
        """NAG for measured constants; warns where the noise is more than NAG tolerates."""
        c = nag_parameters(mu, L, sigma_mult, eta, eps)
        return cls(params, lr=c.eta, momentum=c.rho, **kw)

    def _tie(self, group: dict[str, Any]) -> None:
        group["correction"] = group["lr"]

    _moved = (
        "alpha moved without rho: the rate of NAG is promised for lr and momentum together; use "
        "NAGSchedule, or set momentum = (1 - s)/(1 + s) with s = sqrt(mu lr) as well"
    )

    @staticmethod
    def _only_lr(now: tuple[Any, ...], last: tuple[Any, ...]) -> bool:
        return True


def _refuse_step(*_: Any) -> None:
    raise RuntimeError("step() inside iterate(): the parameters hold x_n, leave the block first")


def _differs(a: Any, b: Any) -> bool:
    """Tensors are taken to differ: reading them would wait for the accelerator."""
    if isinstance(a, Tensor) or isinstance(b, Tensor):
        return True
    return bool(a != b)


def _check_group(group: dict[str, Any]) -> None:
    for name in ("lr", "correction", "weight_decay"):
        value = group[name]
        if isinstance(value, Tensor):
            if not group["capturable"] and value.numel() != 1:
                raise ValueError(f"{name} must be a number or a one-element tensor, got {value}")
            continue
        if not (isfinite(value) and value >= 0):
            raise ValueError(f"{name} must be >= 0, got {value}")
    rho = group["momentum"]
    if not isinstance(rho, Tensor) and not 0 <= rho < 1:
        raise ValueError(f"momentum must be in [0, 1), got {rho}")
    if group["foreach"] and group["fused"]:
        raise ValueError("foreach and fused cannot both be True; choose one")
