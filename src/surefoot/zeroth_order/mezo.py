"""MeZO (arXiv 2305.17333) and its momentum and Adam forms: full Gaussian directions, in the same house."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from surefoot._numerics.checks import check_number
from surefoot.zeroth_order._engine.tensors import Slot
from surefoot.zeroth_order.optimizer import ZerothOrder


class MeZO(ZerothOrder):
    """ZO-SGD with z ~ N(0, I): every weight is perturbed, in place, from seeds that are drawn again.

    `momentum` keeps an average of c z, as many numbers as there are weights. Parameters as in `LOZO`.
    """

    method = "mezo"

    def __init__(
        self, params_or_model: nn.Module | Iterable[Any], lr: float = 1e-6, **more: Any
    ) -> None:
        more.setdefault("mode", "inplace")
        super().__init__(params_or_model, lr, rank=0, **more)

    def _plain(self, slot: Slot) -> bool:
        return self.momentum == 0

    def _step_of(self, slot: Slot, mean: Tensor) -> Tensor:
        old = slot.momentum.get("n")
        new = mean if old is None else old.mul_(self.momentum).add_(mean, alpha=1 - self.momentum)
        slot.momentum["n"] = new
        return new


class ZOAdam(ZerothOrder):
    """Adam on the estimate c z (MeZO-Adam): two moments, twice as many numbers as there are weights.

    Parameters
    ----------
    betas, adam_eps
        As in torch.optim.Adam.
    """

    method = "zo-adam"

    def __init__(
        self,
        params_or_model: nn.Module | Iterable[Any],
        lr: float = 1e-4,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        adam_eps: float = 1e-8,
        **more: Any,
    ) -> None:
        self.betas = (
            check_number("betas[0]", betas[0], least=0, below=1),
            check_number("betas[1]", betas[1], least=0, below=1),
        )
        self.adam_eps = check_number("adam_eps", adam_eps, above=0)
        more.setdefault("mode", "inplace")
        super().__init__(params_or_model, lr, rank=0, **more)

    def _settings(self) -> dict[str, Any]:
        return super()._settings() | {"betas": list(self.betas), "adam_eps": self.adam_eps}

    def _plain(self, slot: Slot) -> bool:
        return False

    def _step_of(self, slot: Slot, mean: Tensor) -> Tensor:
        if "m" not in slot.momentum:
            slot.momentum = {
                "m": torch.zeros_like(mean),
                "v": torch.zeros_like(mean),
                "count": torch.zeros((), dtype=torch.int64),
            }
        state = slot.momentum
        state["count"] += 1
        count = int(state["count"])
        b1, b2 = self.betas
        state["m"].lerp_(mean, 1 - b1)
        state["v"].mul_(b2).addcmul_(mean, mean, value=1 - b2)
        denominator = (state["v"] / (1 - b2**count)).sqrt_().add_(self.adam_eps)
        return state["m"] / denominator / (1 - b1**count)
