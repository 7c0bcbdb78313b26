"""LOZO: low-rank directions with a lazily drawn factor (arXiv 2410.07698), and its momentum form LOZO-M."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from surefoot._numerics.checks import check_choice, check_number
from surefoot.zeroth_order._engine import checks
from surefoot.zeroth_order._engine.tensors import Slot
from surefoot.zeroth_order.optimizer import ZerothOrder


class LOZO(ZerothOrder):
    """Zeroth-order fine-tuning along U V^T, with V kept for `nu` steps.

    A matrix of m x n moves by rank `rank`; vectors, and matrices no larger than the rank, move in all
    directions. Given a module, weights are perturbed by hooks and written once per period (mode
    "factored"): no drift in 16 bits, and the memory of inference. Given parameters, they are perturbed
    in place.

    Parameters
    ----------
    params_or_model
        A module, or what any torch optimiser takes; groups may set lr, rank, eps and weight_decay.
    lr
        alpha. In the paper's scale and 1/rank convention; the authors' code leaves 1/rank out.
    rank, nu
        r, and how many steps a V is kept: more than 3 (m r + 2) steps with one V are wasted.
    eps
        Size of the perturbation.
    momentum
        beta of LOZO-M; 0 for LOZO. The factor N costs rank * m numbers.
    reproject
        What becomes of N when V changes: "paper", "lstsq" or "reset". The approximate projection keeps about
        r/n of its energy, so momentum is in effect restarted with every period.
    scale
        "paper": entries of a matrix are perturbed with variance rank * eps^2. "unit": with eps^2, so that eps
        and lr carry over between ranks and from MeZO; recommended.
    v_dist
        "gaussian", or "orthogonal": V^T V = n I, the paper's theory and a smaller second moment.
    mode
        "auto", "factored" or "inplace".
    num_directions, one_sided, c_clip
        q directions averaged; F(X + eps) - F(X) in place of the central difference; bound on |c|.
    leave_one_out
        With q directions: each loss against the mean of the others', q forwards in all.
    normalize
        Divide the step by the spread of the q losses (in the manner of FZOO): invariant to the loss's scale.
    weight_decay
        Decoupled, on tensors with two dimensions or more, applied to the iterate at the end of each period.
    freeze_embeddings
        Leave embeddings alone: rows that are not read get noise updates otherwise.
    self_check
        Look on the first step whether hooks see every use of the weights.
    fold
        False keeps every period's factors apart instead of writing weights; see `adapter`.
    log
        A StepLog, a path or True: kilobytes from which `replay` makes the weights again.
    allow_drift
        Let 16-bit weights be perturbed in place all the same.

    Raises
    ------
    ValueError
        If an argument is outside its range.
    TypeError
        For parameters that are not real floating-point tensors.
    """

    method = "lozo"

    def __init__(
        self,
        params_or_model: nn.Module | Iterable[Any],
        lr: float = 1e-6,
        *,
        rank: int = 2,
        nu: int = 50,
        reproject: str = "paper",
        **more: Any,
    ) -> None:
        rank = check_number("rank", rank, least=1, whole=True)
        self.reproject = check_choice("reproject", reproject, checks.REPROJECTIONS)
        super().__init__(params_or_model, lr, rank=rank, nu=nu, **more)

    def _settings(self) -> dict[str, Any]:
        return super()._settings() | {"reproject": self.reproject}

    def _plain(self, slot: Slot) -> bool:
        return self.momentum == 0

    def _new_period(self, slot: Slot, old_v: Tensor | None) -> None:
        n_factor = slot.momentum.get("n")
        if n_factor is None or slot.v is None or old_v is None:
            return
        if old_v.shape != slot.v.shape:
            # Another rank: there is nothing to project onto.
            del slot.momentum["n"]
            return
        # E ||N V_old^T V_new / n V_new^T||^2 is about r/n of the old energy.
        overlap = old_v.T @ slot.v
        if self.reproject == "reset":
            slot.momentum["n"] = torch.zeros_like(n_factor)
        elif self.reproject == "paper":
            slot.momentum["n"] = n_factor @ overlap.to(n_factor) / slot.n
        else:
            gram = slot.v.T @ slot.v
            slot.momentum["n"] = torch.linalg.solve(gram, (n_factor.to(gram) @ overlap).T).T.to(
                n_factor
            )

    def _step_of(self, slot: Slot, mean: Tensor) -> Tensor:
        old = slot.momentum.get("n")
        # The first step ever carries no (1 - beta), as in the authors' code.
        new = mean if old is None else old.mul_(self.momentum).add_(mean, alpha=1 - self.momentum)
        slot.momentum["n"] = new
        return new
