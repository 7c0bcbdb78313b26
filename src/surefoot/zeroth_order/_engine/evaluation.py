"""Evaluating the loss on both sides of the iterate: the scalar of one micro-batch."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from surefoot._numerics.checks import check_number
from surefoot.zeroth_order._engine import checks
from surefoot.zeroth_order._engine.distributed import Reducer
from surefoot.zeroth_order.log import digest_of
from surefoot.zeroth_order.state import Keeping

Closure = Callable[[], Any]
FLAT = 20


class Evaluation(Keeping):
    """Two losses a direction, one scalar, summed over the micro-batches of a step."""

    last: dict[str, Any]
    _reducer: Reducer
    _flat: int
    _needs_grad: bool
    _told: bool

    def _evaluate(self, closure: Closure) -> float:
        try:
            return self._loss(closure)
        except BaseException:
            # Whoever handles this error finds the iterate in the weights, not a perturbation.
            self._release()
            self._clear()
            raise

    def _loss(self, closure: Closure) -> float:
        if self._needs_grad:
            with torch.enable_grad():
                return checks.loss_value(closure())
        try:
            with torch.no_grad():
                return checks.loss_value(closure())
        except RuntimeError as error:
            if "does not require grad" not in str(error):
                raise
        self._needs_grad = True
        warnings.warn(
            "the closure calls backward(); zeroth-order steps use no gradients: leave it out to save "
            "the memory that this optimiser is for",
            stacklevel=5,
        )
        return self._loss(closure)

    def _pair(self, closure: Closure, i: int, base: float | None) -> tuple[float, float, float]:
        """F+, F- (or F at the iterate) and c of direction i."""
        eps = self.param_groups[0]["eps"]
        self._place(i, 1.0)
        plus = self._evaluate(closure)
        if base is not None:
            return plus, base, (plus - base) / eps
        self._place(i, -1.0)
        minus = self._evaluate(closure)
        return plus, minus, (plus - minus) / (2 * eps)

    def _estimate(self, closure: Closure, weight: float | None, restore: bool) -> float:
        if any(g["eps"] != self.param_groups[0]["eps"] for g in self.param_groups):
            raise ValueError("eps must be the same in all groups: one difference serves them all")
        if weight is not None:
            weight = check_number("weight", weight, above=0)
        if self._sums is not None and (weight is None) != (self._weight is None):
            raise ValueError("weight must be given for all micro-batches of a step, or for none")
        self._prepare(closure)
        base = None
        if self.one_sided:
            self._release()
            base = self._evaluate(closure)
        found = []
        for i in range(self.num_directions):
            found.append(self._pair(closure, i, 0.0 if self.leave_one_out else base))
        if self.leave_one_out:
            # Each loss against the mean of the others: one forward a direction, and none for a baseline.
            eps, total = self.param_groups[0]["eps"], sum(f[0] for f in found)
            others = [(total - f[0]) / (len(found) - 1) for f in found]
            found = [(f[0], o, (f[0] - o) / eps) for f, o in zip(found, others, strict=True)]
        if self.normalize:
            spread = float(np.std([f[0] for f in found]))
            eps = self.param_groups[0]["eps"]
            found = [(a, b, c * eps / spread if spread else 0.0) for a, b, c in found]
        if restore or self.num_directions > 1:
            self._release()
        w = 1.0 if weight is None else float(weight)
        c = np.array([f[2] for f in found]) * w
        self._sums = c if self._sums is None else self._sums + c
        self._total += w
        self._weight = weight
        self._micro += 1
        plus, minus = (float(np.mean([f[j] for f in found])) for j in (0, 1))
        self.last = {"loss_plus": plus, "loss_minus": minus, "fd_error": None}
        self._watch_resolution(found)
        return float(np.mean(c) / w)

    def _prepare(self, closure: Closure) -> None:
        if self._sums is None:
            self._begin_period()
            self._first()
            if self._self_check is not None and self.mode == "factored":
                self._self_check.run(self, closure)
                self._self_check = None

    def _first(self) -> None:
        """What is looked at once, when weights are those that training starts from."""
        if self.log is not None and not self.log.header:
            self._release()
            self.log.begin(self)
        if self.t == 0 and not self._told:
            self._told = True
            self._warn_of_rounding()
            if self._reducer.size > 1:
                self._reducer.expect(digest_of(self.slots))

    def _warn_of_rounding(self) -> None:
        """Dense 16-bit tensors, whose perturbation may be smaller than the distance of two numbers."""
        lost = []
        for slot in self.slots:
            if slot.dense and slot.storage == "written" and slot.param.element_size() < 4:
                eps = self.param_groups[slot.group]["eps"]
                spacing = torch.finfo(slot.param.dtype).eps * slot.param.detach().float().abs()
                if float((spacing > 2 * eps).float().mean()) > 0.5:
                    lost.append(slot.name)
        if lost:
            warnings.warn(
                f"eps is below the spacing of {self._dtype_of(lost[0])} in most entries of {lost[0]}"
                + (f" and {len(lost) - 1} more" if len(lost) > 1 else "")
                + ": their perturbations round away; keep these tensors in float32, or freeze them",
                stacklevel=6,
            )

    def _dtype_of(self, name: str) -> torch.dtype:
        return next(s.param.dtype for s in self.slots if s.name == name)

    def _watch_resolution(self, found: list[tuple[float, float, float]]) -> None:
        if any(f[0] != f[1] for f in found):
            self._flat = 0
            return
        self._flat += 1
        if self._flat == FLAT:
            warnings.warn(
                f"F+ and F- were equal in {FLAT} steps in a row: eps is below the resolution of the loss; "
                "compute the loss in float32, or raise eps",
                stacklevel=5,
            )
