"""NAG with a decreasing step, which removes the floor that additive noise leaves."""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from surefoot._numerics.arguments import checked
from surefoot.guarantee import Guarantee
from surefoot.nesterov._optimizer.lookahead import LookAhead
from surefoot.nesterov.guarantee import decreasing_rate
from surefoot.nesterov.parameters import decreasing_offset


@checked
class DecreasingNAG(LookAhead):
    """eta_n = 4/(mu (n+n0)^2) with n0 = max(2 sqrt(L/mu), 3); the rate is 1/n under additive noise.

    With the normalised velocity w: y_n = x_n + sqrt(eta_n) w_n, x_{n+1} = y_n - eta_n g_n,
    w_{n+1} = rho_n (w_n - sqrt(eta_n) g_n), rho_n = (1 - s_n)/(1 + s_{n+1}), s_n = 2/(n+n0).
    The parameters hold y_n; `iterate` shows x_n, `finalize` leaves it.

    A group may have mu and L of its own. Its `lr` shows the coming eta_n and is no setting: a scheduler that
    moves it is refused at the next step.

    Parameters
    ----------
    params
        Parameters or parameter groups.
    mu
        The constant of strong aiming that the promise is made for.
    L
        The smoothness of f, an upper bound of it.

    Raises
    ------
    ValueError
        mu or L out of range.
    RuntimeError
        A sparse gradient, or an `lr` that was set.

    Notes
    -----
    Source: in the setting of arXiv 2410.08395; the schedule is derived here, see `decreasing_bound`.
    """

    def __init__(self, params: ParamsT, mu: float, L: float) -> None:
        super().__init__(params, {"mu": mu, "L": L})

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group, whose steps are counted from 0."""
        group = {**self.defaults, **param_group, "n": 0}
        group["n0"] = decreasing_offset(group["mu"], group["L"])
        super().add_param_group({**group, "lr": self._eta(group, 0)})

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        for group in self.param_groups:
            group.setdefault("lr", self._eta(group, group["n"]))

    def _rate(self, **constants: Any) -> Guarantee:
        return decreasing_rate(**constants)

    def _facts_of(self, group: dict[str, Any]) -> dict[str, Any]:
        # torch adds the defaults to a group without looking; another mu or L has another n0.
        own = group["n0"] == decreasing_offset(group["mu"], group["L"])
        return {
            "mu": float(group["mu"]), "L": float(group["L"]), "hyperparameters_changed": not own,
            "weight_decay": 0.0, "maximize": False, "implementation": "single",
        }  # fmt: skip

    @staticmethod
    def _eta(group: dict[str, Any], n: int) -> float:
        return float(4 / (group["mu"] * (n + group["n0"]) ** 2))

    def _refuse_lr(self) -> None:
        for group in self.param_groups:
            eta = self._eta(group, group["n"])
            if group["lr"] != eta:
                raise RuntimeError(
                    f"DecreasingNAG sets its step itself, 4/(mu (n+n0)^2) = {eta:.6g} at n = "
                    f"{group['n']}, and lr was set to {float(group['lr']):.6g}: leave the scheduler out, "
                    "or use NAG with NAGSchedule"
                )

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step; `closure` re-evaluates the loss with gradients enabled."""
        self._refuse_iterate()
        self._refuse_lr()
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        skipped = False
        for index, group in enumerate(self.param_groups):
            self._note(index, group)
            n, n0 = group["n"], group["n0"]
            now = (group["mu"], group["L"], n0)
            if group.setdefault("last", now) != now:
                group["last"] = now
                self.record.note(hyperparameters_changed=True)
            eta, following = self._eta(group, n), self._eta(group, n + 1)
            rho = (1 - 2 / (n + n0)) / (1 + 2 / (n + 1 + n0))
            for i, p in enumerate(group["params"]):
                if p.grad is None:
                    skipped = True
                    continue
                if p.grad.is_sparse:
                    raise RuntimeError(
                        f"parameter {i} has a sparse gradient; accelerated steps are dense, use "
                        "sparse=False in its layer"
                    )
                state = self.state[p]
                if "w" not in state:
                    state["w"] = torch.zeros_like(p)
                w: Tensor = state["w"]
                p.add_(p.grad, alpha=-eta)
                w.add_(p.grad, alpha=-sqrt(eta)).mul_(rho)
                p.add_(w, alpha=sqrt(following))
            group["n"], group["lr"] = n + 1, following
        self._count(skipped)
        return loss

    @torch.no_grad()
    def _shift(self, sign: int) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                if "w" in self.state.get(p, {}):
                    p.add_(self.state[p]["w"], alpha=-sign * sqrt(self._eta(group, group["n"])))

    def _rest(self) -> None:
        for state in self.state.values():
            if "w" in state:
                state["w"].zero_()
