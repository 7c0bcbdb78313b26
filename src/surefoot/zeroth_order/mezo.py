"""MeZO (arXiv 2305.17333) and its momentum and Adam forms: full Gaussian directions, in the same house."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Self

from torch import nn

from surefoot._numerics.arguments import checked
from surefoot.record import Record
from surefoot.zeroth_order._engine.rules import Adam, Momentum, Rule
from surefoot.zeroth_order._engine.settings import Settings
from surefoot.zeroth_order.log import StepLog
from surefoot.zeroth_order.optimizer import ZerothOrder
from surefoot.zeroth_order.private import Privacy


@checked
class MeZO(ZerothOrder):
    """ZO-SGD with z ~ N(0, I): every weight is perturbed, in place, from seeds that are drawn again.

    Parameters
    ----------
    params_or_model
        A module, or what any torch optimiser takes; groups may set lr, eps, weight_decay, and a rank.
    lr
        The learning rate.
    eps
        Size of the perturbation.
    momentum
        beta of MeZO-M: an average of c z, as many numbers as there are weights; 0 for MeZO.
    mode
        "inplace", or "factored": copies of all weights are kept, without drift in 16 bits; needs the model.
    seed
        Of the directions, and the run's seed in its record.
    num_directions, one_sided, c_clip, leave_one_out, normalize
        Of the estimate, as in `LOZO`.
    weight_decay
        Decoupled, on tensors with two dimensions or more, at the end of each period of nu steps.
    nu, scale, v_dist
        As in `LOZO`; they matter to groups that set a rank, and nu to the weight decay.
    freeze_embeddings, self_check, fold, process_group, log, allow_drift, model, record, privacy
        As in `LOZO`; privacy needs mode "factored".

    Raises
    ------
    ValueError
        If an argument is outside its range.
    TypeError
        For parameters that are not real floating-point tensors.
    """

    method = "mezo"

    def __init__(
        self,
        params_or_model: nn.Module | Iterable[Any],
        lr: float = 1e-6,
        *,
        eps: float = 1e-3,
        momentum: float = 0.0,
        nu: int = 1,
        scale: str = "paper",
        v_dist: str = "gaussian",
        mode: str = "inplace",
        seed: int = 0,
        num_directions: int = 1,
        c_clip: float | None = None,
        weight_decay: float = 0.0,
        one_sided: bool = False,
        leave_one_out: bool = False,
        normalize: bool = False,
        freeze_embeddings: bool = False,
        self_check: bool | None = None,
        fold: bool = True,
        process_group: Any = None,
        log: StepLog | str | bool | None = None,
        allow_drift: bool = False,
        model: nn.Module | None = None,
        record: Record | None = None,
        privacy: Privacy | None = None,
    ) -> None:
        settings = Settings(
            seed=seed, nu=nu, scale=scale, v_dist=v_dist, mode=mode, momentum=momentum,
            num_directions=num_directions, one_sided=one_sided, c_clip=c_clip, fold=fold,
            leave_one_out=leave_one_out, normalize=normalize,
        )  # fmt: skip
        rule = Momentum(settings.momentum) if settings.momentum else Rule()
        super().__init__(
            params_or_model, lr, settings=settings, rule=rule, rank=0, eps=eps,
            weight_decay=weight_decay, freeze_embeddings=freeze_embeddings, self_check=self_check,
            process_group=process_group, log=log, allow_drift=allow_drift, model=model, record=record,
            privacy=privacy,
        )  # fmt: skip


@checked
class ZOAdam(ZerothOrder):
    """Adam on the estimate c z (MeZO-Adam): two moments, twice as many numbers as there are weights.

    Parameters
    ----------
    params_or_model
        A module, or what any torch optimiser takes; groups may set lr, eps, weight_decay, and a rank.
    lr
        The learning rate.
    eps
        Size of the perturbation.
    betas, adam_eps
        As in torch.optim.Adam.
    mode
        "inplace", or "factored": copies of all weights are kept, without drift in 16 bits; needs the model.
    seed
        Of the directions, and the run's seed in its record.
    num_directions, one_sided, c_clip, leave_one_out, normalize
        Of the estimate, as in `LOZO`.
    weight_decay
        Decoupled, on tensors with two dimensions or more, at the end of each period of nu steps.
    nu, scale, v_dist
        As in `LOZO`; they matter to groups that set a rank, and nu to the weight decay.
    freeze_embeddings, self_check, fold, process_group, log, allow_drift, model, record
        As in `LOZO`.

    Raises
    ------
    ValueError
        If an argument is outside its range.
    TypeError
        For parameters that are not real floating-point tensors.
    """

    method = "zo-adam"

    def __init__(
        self,
        params_or_model: nn.Module | Iterable[Any],
        lr: float = 1e-4,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        adam_eps: float = 1e-8,
        eps: float = 1e-3,
        nu: int = 1,
        scale: str = "paper",
        v_dist: str = "gaussian",
        mode: str = "inplace",
        seed: int = 0,
        num_directions: int = 1,
        c_clip: float | None = None,
        weight_decay: float = 0.0,
        one_sided: bool = False,
        leave_one_out: bool = False,
        normalize: bool = False,
        freeze_embeddings: bool = False,
        self_check: bool | None = None,
        fold: bool = True,
        process_group: Any = None,
        log: StepLog | str | bool | None = None,
        allow_drift: bool = False,
        model: nn.Module | None = None,
        record: Record | None = None,
    ) -> None:
        settings = Settings(
            seed=seed, nu=nu, scale=scale, v_dist=v_dist, mode=mode,
            num_directions=num_directions, one_sided=one_sided, c_clip=c_clip, fold=fold,
            leave_one_out=leave_one_out, normalize=normalize,
        )  # fmt: skip
        rule = Adam(betas, adam_eps)
        super().__init__(
            params_or_model, lr, settings=settings, rule=rule, rank=0, eps=eps,
            weight_decay=weight_decay, freeze_embeddings=freeze_embeddings, self_check=self_check,
            process_group=process_group, log=log, allow_drift=allow_drift, model=model, record=record,
        )  # fmt: skip

    @classmethod
    def from_settings(cls, groups: Any, settings: dict[str, Any], model: nn.Module) -> Self:
        """As a log's header describes it; the header has a momentum for every method.

        Parameters
        ----------
        groups, settings, model
            As in `ZerothOrder.from_settings`.
        """
        own = {k: v for k, v in settings.items() if k != "momentum"}
        return super().from_settings(groups, own, model)
