"""Promised beside measured for a model at hand: `LOZOReport`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from surefoot._numerics.arguments import checked
from surefoot._numerics.checks import check_number
from surefoot._showing import showing
from surefoot.guarantee import Assumption
from surefoot.zeroth_order._engine.recording import settings_in
from surefoot.zeroth_order.bounds import Bound, lozo_bound
from surefoot.zeroth_order.guarantee import gradient_guarantee
from surefoot.zeroth_order.optimizer import ZerothOrder
from surefoot.zeroth_order.probe import gradient_noise, smoothness, trace

LossOf = Callable[[nn.Module, Any], Tensor]


def _own_loss(model: nn.Module, batch: Any) -> Tensor:
    found: Tensor = model(**batch).loss
    return found


@dataclass(frozen=True)
class Row:
    """One line: what, its value, and whether it was measured, probed, assumed or computed."""

    name: str
    value: float
    how: str


@showing
@checked
class LOZOReport:
    """Constants, bound and measured gradient of one optimiser on one model, as a table.

    Parameters
    ----------
    optimizer
        A LOZO, after `flush()` or before its first step.
    model, data
        The model, and a few batches to measure on; autograd must fit.
    loss
        `loss(model, batch)`; by default `model(**batch).loss`.
    steps
        T of the run that is judged; by default 100 periods.

    Raises
    ------
    ValueError
        If there are fewer than two batches.
    """

    def __init__(
        self,
        optimizer: ZerothOrder,
        model: nn.Module,
        data: Iterable[Any],
        *,
        loss: LossOf = _own_loss,
        steps: int | None = None,
    ) -> None:
        batches = list(data)
        if len(batches) < 2:
            raise ValueError(f"data must hold at least two batches, got {len(batches)}")
        parameters = [s.param for s in optimizer.tensors]

        def whole() -> Tensor:
            return torch.stack([loss(model, b) for b in batches]).mean()

        each = []
        for batch in batches:
            found = torch.autograd.grad(loss(model, batch), parameters)
            each.append(torch.cat([g.flatten() for g in found]).double())
        gradients = torch.stack(each)
        top = smoothness(whole, parameters)
        noise = gradient_noise(gradients)
        start = float(whole().detach())
        low = [s for s in optimizer.tensors if s.usable_rank(s.rank)]
        dense = sum(s.param.numel() for s in optimizer.tensors if not s.usable_rank(s.rank))
        if steps is not None:
            check_number("steps", steps, least=1, whole=True)
        total = steps or 100 * optimizer.nu
        self.bound: Bound = lozo_bound(
            [(s.m, s.n) for s in low], [s.rank for s in low], optimizer.nu,
            total - total % optimizer.nu, max(top, 1e-12), noise, start,
            dense=dense, scale=optimizer.settings.scale,
        )  # fmt: skip
        # A low-rank direction adds at most (6 / r) tr H to a Gaussian one's tr H + 2 lambda_max.
        extra = 6 / min(s.rank for s in low) if low else 0.0
        effective = max((1 + extra) * trace(whole, parameters) + 2 * top, 1e-12)
        self.alpha = float(optimizer.param_groups[0]["lr"])
        guarantee = gradient_guarantee(
            L=max(top, 1e-12), sigma2=noise, delta0=start,
            how="measured on the batches, L from below, f* = 0 assumed",
        )  # fmt: skip
        self.assumptions = guarantee.assumptions(
            settings_in(optimizer.engine, type(optimizer).__name__)
        )
        self.rows = (
            Row("L", top, "measured: power iteration, a lower estimate"),
            Row("sigma^2", noise, "measured: spread of the batches' gradients"),
            Row("Delta_0", start, "assumed: f* = 0"),
            Row(
                "||grad f||^2 now",
                float(gradients.mean(dim=0).square().sum()),
                "measured: autograd",
            ),
            Row("alpha", self.alpha, "given"),
            Row("alpha_max", self.bound.alpha_max, "computed"),
            Row("bound at the best alpha", self.bound.value, "computed"),
            Row(
                "1 / (effective-rank version of L C)",
                1 / effective,
                "measured: Hutchinson, H >= 0 assumed",
            ),
        )

    @property
    def promised(self) -> bool:
        """Whether no condition of the theorem fails with the optimiser's own settings and rate."""
        return not self._failing

    @property
    def _failing(self) -> list[Assumption]:
        return [a for a in self.assumptions if a.holds is False]

    @property
    def verdict(self) -> str:
        """ "covered", with what nobody has measured yet, or NOT_PROMISED and why."""
        if self._failing:
            return "NOT_PROMISED: " + "; ".join(
                f"{a.name} fails: requires {a.requires} ({a.how})" for a in self._failing
            )
        unknown = [a.name for a in self.assumptions if a.holds is None]
        return "covered" + (f", if so: {', '.join(unknown)}" if unknown else "")

    def __str__(self) -> str:
        lines = [f"  {r.name:<36}{r.value:>12.4g}  {r.how}" for r in self.rows]
        head = "LOZO: promised beside measured"
        return "\n".join([head, *lines, f"  verdict: {self.verdict}"])
