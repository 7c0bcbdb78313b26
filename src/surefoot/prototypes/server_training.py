"""The server's one round: a global adapter from the prototypes of all clients."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

from torch import Tensor

from surefoot._numerics.arguments import checked
from surefoot._numerics.checks import check_choice, check_number
from surefoot._showing import showing
from surefoot.certificate import Certificate
from surefoot.errors import warn
from surefoot.prototypes._server.adamw import Schedule, refuse_diverged, train_adamw
from surefoot.prototypes._server.armijo import Path, descend
from surefoot.prototypes._server.drawing import Sampler, training_features
from surefoot.prototypes.adapter import ResidualAdapter
from surefoot.prototypes.certificates import of_training
from surefoot.prototypes.communication import comm_cost_of
from surefoot.prototypes.guarantee import BYTES_UP, LEAST_GRADIENT
from surefoot.prototypes.head import ZeroShotHead
from surefoot.prototypes.prototype_set import PrototypeSet, uploads_of
from surefoot.record import Record

Solver = Literal["adamw", "certified"]
EPOCHS, BATCH = 200, 10
"""Of the training where nothing is said."""


@showing
@checked(nan=True)
@dataclass(frozen=True)
class ServerReport:
    """How the adapter came about.

    Attributes
    ----------
    solver
        "adamw" or "certified".
    losses
        Of every mini-batch; "certified": of all prototypes at the T + 1 iterates.
    grad_norms_sq
        Squared gradient norms where the T accepted steps began; empty for "adamw".
    step_sizes
        Of these steps; empty for "adamw".
    rows
        Features trained on.
    classes_without_prototypes
        Classes of the head that no client has: they keep their zero-shot row, and nothing was trained for
        them.
    stop
        Why it ended.
    seconds
        Wall-clock time.
    record
        What ran.
    """

    solver: str
    losses: list[float]
    grad_norms_sq: list[float]
    step_sizes: list[float]
    rows: int
    classes_without_prototypes: list[int]
    stop: str
    seconds: float
    record: Record = field(repr=False)

    @property
    def bound(self) -> float:
        """2 (f_0 - f_T) / sum of the step sizes, at least the least |grad f|^2; infinite without steps."""
        total = sum(self.step_sizes)
        return 2 * (self.losses[0] - self.losses[-1]) / total if total else float("inf")

    def certificates(self, confidence: float = 0.99) -> list[Certificate]:
        """What is promised of the run, and what was measured."""
        return of_training(self.record, confidence)


@checked
def train_global_adapter(
    sets: Iterable[PrototypeSet],
    head: ZeroShotHead,
    lr: float = 1e-3,
    epochs: int | None = None,
    batch_size: int = BATCH,
    solver: Solver = "adamw",
    sampler: Sampler = None,
    seed: int = 0,
    authors_batches: bool = False,
    *,
    steps: int | None = None,
    early_stop: bool = True,
    residual: bool = True,
    hidden: int | None = None,
) -> tuple[ResidualAdapter, ServerReport]:
    """Train an adapter on all prototypes as if they were one data set (arXiv 2410.07738, the authors' code).

    Rows are stacked client by client; of "cluster_var" and "gauss" 2 n_c features a class and client are
    drawn instead. Cross-entropy, AdamW (weight decay 1e-2), gradients clipped to 1, step size over 10
    epochs of warm-up and then a cosine to 0.

    Parameters
    ----------
    sets
        One a client, in partition order.
    head
        The frozen classifier.
    lr
        The largest step size; "certified": the first that is tried.
    epochs
        At most, by default 200; "certified" takes as many full-batch steps.
    batch_size
        Rows a step, reshuffled every epoch; a last batch of one row is left out. "certified" takes all.
    solver
        "adamw", or "certified": gradient descent in the dtype of the features whose every step is checked for
        descent (use float64 features).
    sampler
        "additive": draw from `additive_model` (method "mean" only).
    seed
        Of initial weights, batches and drawn features.
    authors_batches
        The same batches in every epoch, and no last partial batch.
    steps
        Exactly so many mini-batches at a constant step size, instead of epochs: private data leave nothing to
        tune on, fix lr 1e-3 and 1,000 steps beforehand.
    early_stop
        The authors' rule: end when the last 20 losses deviate by less than 1e-3. It under-trains small
        uploads, and is off where steps are given.
    residual
        As in `additive_model`; only with sampler="additive".
    hidden
        Of the adapter, by default d // 4.

    Raises
    ------
    ValueError
        No sets, sets of several dimensions or encoders, labels beyond the head, or options that exclude
        each other.
    surefoot.errors.NonFiniteError
        A loss or a weight is not finite.
    """
    began = time.perf_counter()
    check_options(
        lr=lr, epochs=epochs, batch_size=batch_size, solver=solver, sampler=sampler, steps=steps,
        residual=residual, authors_batches=authors_batches, hidden=hidden, early_stop=early_stop,
    )  # fmt: skip
    lr, epochs, batch_size = float(lr), EPOCHS if epochs is None else int(epochs), int(batch_size)
    steps = None if steps is None else int(steps)
    sets = uploads_of(sets)
    _check_sets(sets, head)
    features, labels = training_features(sets, sampler, residual, seed)
    absent = sorted(set(range(head.classes)) - set(labels.tolist()))
    if absent:
        warn(f"no client has records of classes {absent}: the adapter learns nothing of them")
    adapter = ResidualAdapter(features.shape[1], hidden, seed=seed, dtype=features.dtype)
    if solver == "certified":
        path = descend(adapter, head, features, labels, lr, epochs)
    else:
        early_stop = early_stop and steps is None
        schedule = Schedule(lr, epochs, batch_size, steps, authors_batches, early_stop, seed)
        losses, stop = train_adamw(adapter, head, features, labels, schedule)
        path = Path(losses, stop=stop)
    refuse_diverged(adapter, path.losses, lr)
    record = _recorded(path, features, sets, seed)
    record.note(
        seed, solver=solver, sampler=sampler or "none", lr=lr, epochs=epochs, batch_size=batch_size,
        steps=steps or 0, authors_batches=authors_batches, head_normalized=head.normalize,
        batch="all rows" if solver == "certified" else "mini-batches",
    )  # fmt: skip
    return adapter, ServerReport(
        solver, path.losses, path.grad_norms_sq, path.step_sizes, len(features), absent, path.stop,
        time.perf_counter() - began, record,
    )  # fmt: skip


def check_options(
    *,
    lr: float,
    epochs: int | None,
    batch_size: int,
    solver: str,
    sampler: str | None,
    steps: int | None,
    residual: bool,
    authors_batches: bool = False,
    hidden: int | None = None,
    early_stop: bool = True,
) -> None:
    """Refuse what `train_global_adapter` would, before anybody has sent anything.

    Parameters
    ----------
    lr, epochs, batch_size, solver, sampler, steps, residual, authors_batches, hidden, early_stop
        As there.

    Raises
    ------
    ValueError
        A number outside its range, or options that exclude each other.
    """
    check_choice("solver", solver, get_args(Solver))
    check_choice("sampler", sampler, ("additive", None))
    # A word for a switch would count as true.
    for name, switch in (
        ("residual", residual),
        ("authors_batches", authors_batches),
        ("early_stop", early_stop),
    ):
        check_choice(name, switch, (True, False))
    check_number("lr", lr, above=0)
    check_number("batch_size", batch_size, least=1, whole=True)
    for name, given in (("epochs", epochs), ("steps", steps), ("hidden", hidden)):
        if given is not None:
            check_number(name, given, least=1, whole=True)
    if steps is not None and epochs is not None:
        raise ValueError(f"give steps or epochs, got steps={steps} and epochs={epochs}")
    if not residual and sampler is None:
        raise ValueError('residual=False changes the additive sampler; pass sampler="additive"')
    if solver == "certified" and (authors_batches or steps is not None):
        raise ValueError(
            'solver="certified" takes `epochs` steps on all rows: authors_batches and steps are for "adamw"'
        )
    if solver == "certified" and batch_size != BATCH:
        raise ValueError(
            f'solver="certified" takes all rows at every step: batch_size is for "adamw", got {batch_size}'
        )


def _check_sets(sets: Sequence[PrototypeSet], head: ZeroShotHead) -> None:
    for what, each in (
        ("dimension", [s.d for s in sets]),
        ("encoder", [s.encoder_id for s in sets]),
        ("dtype", [s.features.dtype for s in sets]),
    ):
        if len(set(each)) > 1:
            raise ValueError(f"sets must share one {what}, got by client: {each}")
    if sets[0].d != head.d:
        raise ValueError(f"head must be for embeddings of {sets[0].d} numbers, got {head.d}")
    most = max(int(s.labels.max()) for s in sets)
    if most >= head.classes:
        raise ValueError(f"head has classes 0 to {head.classes - 1}, got prototypes of {most}")


def _recorded(path: Path, features: Tensor, sets: Sequence[PrototypeSet], seed: int) -> Record:
    record = Record()
    record.extend(seed, "loss", path.losses)
    record.extend(seed, "gradient norm squared", path.grad_norms_sq)
    record.extend(seed, "step size", path.step_sizes)
    least = list(itertools.accumulate(path.grad_norms_sq, min))
    record.extend(seed, LEAST_GRADIENT, least, range(1, len(least) + 1))
    cost = comm_cost_of(sets)
    record.append(
        seed,
        0,
        **{BYTES_UP: sum(s.nbytes for s in sets), f"promised {BYTES_UP}": cost.up + cost.beside},
    )
    record.note(
        seed, rows=len(features), clients=len(sets), d=features.shape[1],
        dtype=str(features.dtype).removeprefix("torch."),
    )  # fmt: skip
    for s in sets:
        record.note(seed, method=s.method, ratio=s.ratio, private=s.release is not None)
    return record
