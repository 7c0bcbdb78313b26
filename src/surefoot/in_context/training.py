"""Training a looped model on Gaussian prompts, with the theorems' quantities beside it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from surefoot._numerics.arguments import checked
from surefoot._numerics.checks import check_choice, check_number
from surefoot._showing import showing
from surefoot.certificate import Certificate
from surefoot.errors import NonFiniteError
from surefoot.in_context._guarantee.conditions import refuse_second_run
from surefoot.in_context._measures import Measures
from surefoot.in_context._sampling import conditional_loss
from surefoot.in_context.dominance import whitened
from surefoot.in_context.looped import LoopedTransformer
from surefoot.in_context.prompts import DTYPES, LAW, GaussianPrompts
from surefoot.record import Record

if TYPE_CHECKING:
    import pandas as pd

Objective = Literal["conditional", "sampled"]
ADAM = "Adam"
LONG = 5
"""Loops from which on gradients are clipped by default."""


@showing
@checked(nan=True)
@dataclass(frozen=True)
class Run:
    """What a training did.

    Attributes
    ----------
    model
        The trained model.
    record
        The core record. Columns: `loss`, `distance`, `distance_to_inverse`, `asymmetry`, `u_norm`,
        `dominance_ratio` and its standard error at checkpoints; `least_loss`, `best_step` at the start;
        `loss_ratio`, `minimiser_distance`, and `bias_z` where u was trained, at the end.
    """

    model: LoopedTransformer
    record: Record

    @property
    def history(self) -> pd.DataFrame:
        """The record's numbers, a row a checkpoint."""
        return self.record.frame()

    def certificates(self) -> list[Certificate]:
        """G1 to G5 on this run; the exact values stand in `details` and notes."""
        from surefoot.in_context.guarantee import training_certificates

        return training_certificates(self.record)


@checked
def train_looped(
    model: LoopedTransformer,
    prompts: GaussianPrompts,
    steps: int = 600,
    lr: float = 0.02,
    objective: Objective = "conditional",
    *,
    batch: int = 256,
    final_lr: float = 1e-4,
    clip: float | Literal["auto"] | None = "auto",
    every: int = 50,
    samples: int = 20_000,
    seed: int = 0,
    record: Record | None = None,
) -> Run:
    """Train A (and u, where the model trains it) in place, with Adam and a cosine of its step.

    The paper uses gradient flow in theory; its optimiser is not known, and this is none.

    Parameters
    ----------
    model
        Where it starts is where it is. Untied layers must differ: equal ones stay equal.
    prompts
        Fresh ones are drawn every step.
    steps
        How many.
    lr, final_lr
        Step of Adam at the start and at the end.
    objective
        "conditional": w*, x_q and the noise integrated out given the x_i: the same mean, a fraction of the
        variance. "sampled": the squared error of drawn queries.
    batch
        Prompts a step.
    clip
        Largest norm of the gradient; "auto": 10 from 5 loops on. None: never.
    every
        Steps between checkpoints.
    samples
        Prompts on which the end is scored, beside the exact optimum.
    seed
        Of those prompts, and where the numbers are filed; the training's draws are the prompts' own.
    record
        Where the numbers go; by default a record of its own.

    Returns
    -------
    Run
        The model, the record and certificates.

    Raises
    ------
    ValueError
        An argument is out of range, or model and prompts do not fit.
    NonFiniteError
        The loss became NaN or infinite: at which step.
    """
    if not isinstance(model, LoopedTransformer):
        raise ValueError(f"model must be a LoopedTransformer, got {type(model).__name__}")
    if not isinstance(prompts, GaussianPrompts):
        raise ValueError(f"prompts must be GaussianPrompts, got {type(prompts).__name__}")
    if model.A.dtype not in DTYPES:
        raise ValueError(
            f"model must be float32 or float64 to be trained, got {model.A.dtype}: its losses are squares of "
            "small numbers"
        )
    if prompts.d != model.d:
        raise ValueError(f"prompts must have the model's d = {model.d}, got {prompts.d}")
    if not prompts.n or not model.loops:
        raise ValueError(
            f"n and loops must be at least 1 to train, got n = {prompts.n} and loops = {model.loops}"
        )
    check_choice("objective", objective, ("conditional", "sampled"))
    steps = check_number("steps", steps, least=1, whole=True)
    batch = check_number("batch", batch, least=1, whole=True)
    every = check_number("every", every, least=1, whole=True)
    lr = check_number("lr", lr, above=0)
    final_lr = check_number("final_lr", final_lr, least=0, most=lr)
    limit = _limit(clip, model.loops)
    if not model.tied and model.loops > 1 and bool((model.A[:1] == model.A).all()):
        raise ValueError(
            "model must start from layers that differ: equal ones get equal gradients and stay equal; "
            "give init_std > 0"
        )
    record = Record() if record is None else record
    refuse_second_run(record, check_number("seed", seed, least=0, whole=True), "loss")
    measures = Measures(model, prompts, samples, seed, record)
    _note(record, seed, model, prompts, objective, steps, batch, lr, final_lr, limit)
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(parameters, lr=lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps, eta_min=final_lr)
    loss_of = _objective(model, prompts, objective, batch)
    for step in range(steps):
        if step % every == 0:
            measures.checkpoint(step)
        loss = loss_of()
        if not math.isfinite(value := float(loss.detach())):
            raise NonFiniteError("loss", step, value)
        optimizer.zero_grad()
        # torch gives `backward` no types.
        loss.backward()  # type: ignore[no-untyped-call]
        if limit is not None:
            torch.nn.utils.clip_grad_norm_(parameters, limit)
        optimizer.step()
        schedule.step()
    measures.checkpoint(steps)
    measures.conclude(steps)
    return Run(model, record)


def _limit(clip: Any, loops: int) -> float | None:
    if isinstance(clip, str):
        check_choice("clip", clip, ("auto",))
        return 10.0 if loops >= LONG else None
    return None if clip is None else check_number("clip", clip, above=0)


def _objective(
    model: LoopedTransformer, prompts: GaussianPrompts, objective: Objective, batch: int
) -> Callable[[], Tensor]:
    if objective == "sampled":

        def sampled() -> Tensor:
            p = prompts.sample(batch)
            X, y, xq, target = (v.to(model.A.dtype) for v in (p.X, p.y, p.xq, p.target))
            found: Tensor = model(X, y, xq)
            return (found - target).square().mean()

        return sampled
    kind = model.A.dtype
    _, root = whitened(model.A.detach().double(), prompts.sigma)
    root = None if root is None else root.to(kind)

    def conditional() -> Tensor:
        moments = prompts.whitened_moments(batch).to(kind)
        layers, u = model.layers(), model.u
        if root is not None:
            layers, u = _whitened(layers, root), root @ u
        return conditional_loss(layers, u, moments, prompts.noise, prompts.n).mean()

    return conditional


def _whitened(layers: Sequence[Tensor], root: Tensor) -> list[Tensor]:
    """S^{1/2} A S^{1/2}, of tied layers one and the same tensor."""
    if all(A is layers[0] for A in layers):
        return [root @ layers[0] @ root] * len(layers)
    return [root @ A @ root for A in layers]


def _note(
    record: Record,
    seed: int,
    model: LoopedTransformer,
    prompts: GaussianPrompts,
    objective: str,
    steps: int,
    batch: int,
    lr: float,
    final_lr: float,
    clip: float | None,
) -> None:
    zero = not bool(model.A.detach().any()) and not bool(model.u.detach().any())
    record.note(
        seed, method=ADAM, objective=objective, steps=steps, batch=batch, lr=lr, final_lr=final_lr,
        clip="none" if clip is None else clip, start="A = 0" if zero else "other", path="any",
        tied=model.tied, train_u=model.train_u, d=model.d, n=prompts.n, loops=model.loops,
        sigma="identity" if prompts.sigma is None else "given", noise=prompts.noise, law=LAW,
        prompts_seed=prompts.seed, model_dtype=str(model.A.dtype).removeprefix("torch."),
        dtype="float64",
    )  # fmt: skip
