"""The arms of the private parts: one training each, and what the validation split chose of its candidates."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

import surefoot
from surefoot._problems.arms import keep, of_arm
from surefoot._problems.tuning import EqualTuning
from surefoot.certificate import Certificate
from surefoot.record import Record
from surefoot.zeroth_order.experiments.private_task import Task
from surefoot.zeroth_order.lozo import LOZO
from surefoot.zeroth_order.private import Privacy

DELTA = 1e-5
RANK, PERIOD = 2, 50
Candidate = dict[str, float]
TEST, SECONDS, STEPS = "test accuracy", "CPU seconds", "steps made"


@dataclass(frozen=True)
class Setting:
    """What all arms of a size share: q = 1 / batches, the steps, the noise of each epsilon, the candidates.

    The noise multipliers are given, for delta 1e-5; the tables say which epsilon the recorded facts of a run
    come to.
    """

    batches: int
    steps: int
    first_order_steps: int
    noise: dict[float, float]
    first_order_noise: dict[float, float]
    private: Sequence[Candidate]
    plain: Sequence[Candidate]
    dp_sgd: Sequence[Candidate]
    sgd: Sequence[Candidate]

    @property
    def rate(self) -> float:
        """q."""
        return 1 / self.batches


SETTINGS = {
    "quick": Setting(
        5, 400, 60, {1: 15.01, 8: 2.54}, {1: 5.99, 8: 1.216},
        private=[{"clip": c, "lr": lr} for c in (4.0, 8.0) for lr in (0.03, 0.1)],
        plain=[{"lr": lr} for lr in (0.01, 0.03, 0.1, 0.3)],
        dp_sgd=[{"clip": 1.0, "lr": lr} for lr in (0.3, 1.0, 3.0, 10.0)],
        sgd=[{"lr": lr} for lr in (0.3, 1.0, 3.0, 10.0)],
    ),
    "standard": Setting(
        32, 1000, 300, {1: 3.805, 8: 0.8985}, {1: 2.228, 8: 0.7045},
        private=[{"clip": 24.0, "lr": lr} for lr in (3e-4, 1e-3)],
        plain=[{"lr": lr} for lr in (3e-4, 1e-3)],
        dp_sgd=[{"clip": 1.0, "lr": lr} for lr in (0.1, 0.2)],
        sgd=[{"lr": lr} for lr in (0.01, 0.03)],
    ),
    "paper": Setting(
        32, 3000, 300, {1: 6.455, 3: 2.508, 8: 1.246}, {1: 2.228, 3: 1.082, 8: 0.7045},
        private=[{"clip": c, "lr": lr} for c in (8.0, 24.0) for lr in (1e-4, 3e-4)],
        plain=[{"lr": lr} for lr in (1e-4, 3e-4, 1e-3, 3e-3)],
        dp_sgd=[{"clip": 1.0, "lr": lr} for lr in (0.03, 0.1, 0.2, 0.5)],
        sgd=[{"lr": lr} for lr in (0.003, 0.01, 0.03, 0.1)],
    ),
}  # fmt: skip


@dataclass
class Trained:
    """A model, what its run recorded, how long it took, and what else ran."""

    model: nn.Module
    record: Record = field(default_factory=Record)
    seconds: float = 0.0
    steps: int = 0
    ran: Any = None


def directions(lr: float, seed: int) -> dict[str, Any]:
    """LOZO's settings, the same for every arm that has them."""
    return {"lr": lr, "rank": RANK, "nu": PERIOD, "eps": 1e-3, "scale": "unit", "seed": seed}


def mechanism(
    task: Task, setting: Setting, sigma: float | None, given: Candidate
) -> Privacy | None:
    """Of a private arm; None: of one that is not."""
    if sigma is None:
        return None
    return Privacy(sigma, given["clip"], setting.rate, task.population)


def lozo(
    task: Task, setting: Setting, seed: int, given: Candidate, *, sigma: float | None = None
) -> Trained:
    """LOZO, private where sigma is given: Poisson batches then, of as many rows in the mean."""
    made = Trained(task.model(), steps=setting.steps)
    model, privacy = made.model, mechanism(task, setting, sigma, given)
    optimizer = LOZO(
        model, **directions(given["lr"], seed), self_check=False, privacy=privacy, record=made.record
    )  # fmt: skip
    optimizer.record_into(made.record, seed)
    if privacy is not None:
        for rows in privacy.sampler(steps=setting.steps):
            optimizer.step(lambda at: task.losses(model, at), torch.tensor(rows, dtype=torch.long))
    else:
        generator = torch.Generator().manual_seed(seed)
        for _ in range(setting.steps):
            at = drawn(task, setting, generator)
            optimizer.step(lambda at=at: task.losses(model, at).mean())
    optimizer.flush()
    return made


def sgd(task: Task, setting: Setting, seed: int, given: Candidate) -> Trained:
    """Plain SGD, on as many steps as DP-SGD."""
    made = Trained(task.model(), steps=setting.first_order_steps)
    optimizer = torch.optim.SGD(made.model.parameters(), lr=given["lr"])
    generator = torch.Generator().manual_seed(seed)
    for _ in range(made.steps):
        optimizer.zero_grad()
        loss = task.losses(made.model, drawn(task, setting, generator)).mean()
        # torch's own has no types.
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return made


def dp_sgd(
    task: Task, setting: Setting, seed: int, given: Candidate, *, sigma: float
) -> Trained:  # fmt: skip
    """Opacus' DP-SGD.

    Raises
    ------
    MissingExtraError
        Without Opacus.
    """
    from surefoot.zeroth_order.doors import opacus

    made = Trained(task.model(), steps=setting.first_order_steps)
    opacus.dp_sgd(
        made.model, task.x["train"], task.y["train"], noise_multiplier=sigma, clip=given["clip"],
        lr=given["lr"], batches=setting.batches, steps=made.steps, record=made.record, seed=seed,
    )  # fmt: skip
    return made


def drawn(task: Task, setting: Setting, generator: torch.Generator) -> torch.Tensor:
    """As many rows as a Poisson batch has in the mean."""
    count = round(task.population / setting.batches)
    return torch.randint(0, task.population, (count,), generator=generator)


def compete(
    task: Task, record: Record, seed: int, tuning: EqualTuning, arm: str,
    candidates: Sequence[Candidate], train: Callable[[Candidate], Trained],
    then: Callable[[Trained], None] = lambda made: None,
) -> Trained:  # fmt: skip
    """Train every candidate, keep the one of the best validation accuracy, and test that once.

    Parameters
    ----------
    task, record, seed
        What is trained, and where it goes.
    tuning
        Of the part: it refuses an arm that tries more or fewer candidates than the others.
    arm, candidates
        Its name, and what it tries.
    train
        Makes one training of a candidate.
    then
        Measures what there is to measure beside the chosen one, into its record.
    """

    def attempt(i: float) -> tuple[float, Trained]:
        begun = time.process_time()
        made = train(candidates[int(i)])
        made.seconds = time.process_time() - begun
        return task.accuracy(made.model, "val"), made

    chosen = tuning.choose(arm, [float(i) for i in range(len(candidates))], attempt)
    made = chosen.found
    then(made)
    keep(record, seed, arm, made.record)
    given = ", ".join(f"{k} {v:g}" for k, v in candidates[int(chosen.value)].items())
    record.note(seed, arm, chosen=given, candidates=len(candidates), ties=len(chosen.tied))
    values = {TEST: task.accuracy(made.model, "test"), SECONDS: made.seconds, STEPS: made.steps}
    record.update(seed, 0, {f"{arm}, {k}": float(v) for k, v in values.items()})
    return made


def promised(record: Record, arms: Sequence[str]) -> list[Certificate]:
    """The one list (`surefoot.certificates`) of each arm, by name."""
    found = []
    for arm in arms:
        for c in surefoot.certificates(of_arm(record, arm), delta=DELTA):
            found.append(dataclasses.replace(c, name=f"{arm}: {c.name}"))
    return found


def facts_of(record: Record, arm: str) -> Record:
    """The facts of an arm and how many sums it released: what an accountant asks, and nothing private."""
    found = Record()
    for key, known in record.facts.items():
        if key.startswith(f"{arm}."):
            for seed, values in known.values.items():
                for value in values:
                    found.note(seed, **{key.removeprefix(f"{arm}."): value})
    released = f"{arm}: released_steps"
    if released in record:
        for seed, (step, value) in record.last(released).items():
            found.update(seed, step, {"released_steps": value})
    return found


def epsilon_of(record: Record, arm: str) -> float:
    """What the recorded facts of an arm come to at delta 1e-5; infinite without a mechanism."""
    for c in surefoot.certificates(facts_of(record, arm), delta=DELTA):
        if c.details.get("claim") == "P" and "epsilon" in c.details:
            return float(c.details["epsilon"])
    return float("inf")
