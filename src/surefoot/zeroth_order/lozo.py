"""LOZO: low-rank directions with a lazily drawn factor (arXiv 2410.07698), and its momentum form LOZO-M."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn

from surefoot._numerics.arguments import checked
from surefoot._numerics.checks import check_number
from surefoot.record import Record
from surefoot.zeroth_order._engine.rules import LowRank, LowRankMomentum, Reprojection
from surefoot.zeroth_order._engine.settings import Settings
from surefoot.zeroth_order.log import StepLog
from surefoot.zeroth_order.optimizer import ZerothOrder
from surefoot.zeroth_order.private import Privacy


@checked
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
        "auto", "factored" or "inplace"; auto is factored where the model is given.
    seed
        Of the directions, and the run's seed in its record.
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
        Look on the first step whether hooks see every use of the weights; None: yes, but with privacy, where
        `check_hooks` does it with a made-up batch.
    fold
        False keeps every period's factors apart instead of writing weights; see `adapter`.
    log
        A StepLog, a path or True: kilobytes from which `replay` makes the weights again.
    allow_drift
        Let 16-bit weights be perturbed in place all the same.
    process_group
        Over which c is averaged; by default torch.distributed's own where it is initialised.
    model
        The module, where `params_or_model` are parameters or groups of it.
    record
        Where it writes what it does, facts and numbers; by default a record of its own.
    precision
        Of products in a forward that holds both copies (`step(closure, batch)`): "bfloat16" computes mean and
        difference of a pair in 16 bits, whose rounding cancels in c; a float32 model then holds its weights
        in 16 bits beside it, half as much again. "auto" does so where the weights are in 16 bits already.
        Where this machine has no fast 16-bit products they stay in float32, which `last["how"]` says.
    copies_at_once
        With several directions: how many copies one forward holds at most.
    rank_cap
        With fold=False: where the factors that were set aside have more columns than this, they are cut down
        to the best pair of this rank at the end of a period. That is a loss: B is mostly a random walk, and
        half the rank drops about a third of its norm. `last["rank_error"]` holds the relative error of each
        tensor in the Frobenius norm. None: nothing is lost, and the rank grows by r every nu steps.
    privacy
        A `Privacy`: every step then releases one clipped and noised number a direction and nothing else (see
        `surefoot.zeroth_order.private`). The closure returns one loss an example.

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
        eps: float = 1e-3,
        momentum: float = 0.0,
        reproject: str = "paper",
        scale: str = "paper",
        v_dist: str = "gaussian",
        mode: str = "auto",
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
        precision: str = "auto",
        copies_at_once: int | None = None,
        rank_cap: int | None = None,
        privacy: Privacy | None = None,
    ) -> None:
        rank = check_number("rank", rank, least=1, whole=True)
        settings = Settings(
            seed=seed, nu=nu, scale=scale, v_dist=v_dist, mode=mode, momentum=momentum,
            num_directions=num_directions, one_sided=one_sided, c_clip=c_clip, fold=fold,
            leave_one_out=leave_one_out, normalize=normalize, rank_cap=rank_cap,
        )  # fmt: skip
        how = Reprojection(reproject)
        rule = LowRankMomentum(settings.momentum, how) if settings.momentum else LowRank(how)
        super().__init__(
            params_or_model, lr, settings=settings, rule=rule, rank=rank, eps=eps,
            weight_decay=weight_decay, freeze_embeddings=freeze_embeddings, self_check=self_check,
            process_group=process_group, log=log, allow_drift=allow_drift, model=model, record=record,
            precision=precision, copies_at_once=copies_at_once, privacy=privacy,
        )  # fmt: skip
