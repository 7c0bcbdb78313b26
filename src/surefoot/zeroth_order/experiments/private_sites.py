"""Sites of the private federated part: who holds what, what travels, and federated averaging as a peer."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from surefoot.federated.partition import lda_partition
from surefoot.federated.task import Visit
from surefoot.record import Record
from surefoot.zeroth_order.experiments.private_arms import Candidate, Trained
from surefoot.zeroth_order.experiments.private_task import Task
from surefoot.zeroth_order.experiments.sentences import Adapter
from surefoot.zeroth_order.federated_guarantee import WIRE

SITES, ALPHA = 4, 0.5
FACTORS, BATCH, LOCAL_STEPS = 8, 32, 5
BYTES = "bytes of the round"


@dataclass
class SiteProblem:
    """A task cut into sites: what `federate_scalars` trains."""

    task: Task
    parts: list[Int[np.ndarray, " _"]]

    def model(self) -> nn.Module:
        """The start."""
        return self.task.model()

    def losses(self, model: nn.Module, rows: Int[Tensor, " b"]) -> Float[Tensor, " b"]:
        """Cross-entropy of each row."""
        return self.task.losses(model, rows)

    def rows(self, visit: Visit) -> Int[Tensor, " n"]:
        """All of a site's."""
        return torch.as_tensor(self.parts[visit.partition])

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """On public rows."""
        return {"accuracy": self.task.accuracy(model, "val")}


def problem_of(task: Task, seed: int) -> SiteProblem:
    """Labels by a Dirichlet law, drawn again until no site is empty."""
    labels = task.y["train"].numpy()
    for draw in range(100):
        parts = lda_partition(labels, SITES, ALPHA, 100 * seed + draw)
        if min(map(len, parts)):
            return SiteProblem(task, parts)
    raise AssertionError("a hundred draws left a site without data")


def packed(array: Any) -> int:
    """Bytes of one array in NumPy's format, in which Flower sends it."""
    held = io.BytesIO()
    np.save(held, np.asarray(array), allow_pickle=False)
    return held.getbuffer().nbytes


def count_wire(record: Record, seed: int, scalars: Float[Tensor, "rounds K"]) -> None:
    """What every site would be sent and send back, packed: it lacks one round, and in the first none."""
    each = scalars.numpy()
    for t in range(1, len(each) + 1):
        lacking = min(t - 1, 1)
        message, reply = packed(each[t - 1 - lacking : t - 1]), packed(each[t - 1])
        record.update(
            seed, t,
            {WIRE: SITES * (message + reply), "messages": SITES, "replies": SITES,
             "rounds lacking": SITES * lacking},
        )  # fmt: skip


class Factored(nn.Module):
    """The adapter with P = I + B A: LoRA-like factors, B from zero, and the head."""

    def __init__(self, start: Adapter) -> None:
        super().__init__()
        width = start.p.weight.shape[0]
        drawn = torch.randn(FACTORS, width, generator=torch.Generator().manual_seed(0))
        self.a = nn.Parameter(drawn / width**0.5)
        self.b = nn.Parameter(torch.zeros(width, FACTORS))
        self.head = start.head

    def forward(self, e: Tensor) -> Tensor:
        """Logits of both classes."""
        moved = e + e @ self.a.T @ self.b.T
        logits: Tensor = 20 * self.head(nn.functional.normalize(moved, dim=1))
        return logits


def averaged(problem: SiteProblem, rounds: int, seed: int, given: Candidate) -> Trained:
    """FedAvg: local SGD, means weighed by the sites' examples; of LoRA-like factors on the adapter.

    On digits, where nothing is of low rank, of all weights. Every array that travels is packed and counted.
    """
    start = problem.model()
    model = Factored(start) if isinstance(start, Adapter) else start
    made = Trained(model, steps=rounds)
    names = list(dict(model.named_parameters()))
    state = {k: v.detach().clone() for k, v in model.named_parameters()}
    total = sum(map(len, problem.parts))
    for t in range(1, rounds + 1):
        mean = {k: torch.zeros_like(v) for k, v in state.items()}
        sent = 0
        for site, part in enumerate(problem.parts):
            sent += sum(packed(v) for v in state.values())
            found = _visited(model, problem, state, part, given["lr"], (seed, t, site))
            sent += sum(packed(v) for v in found.values())
            for k in names:
                mean[k] += found[k] * (len(part) / total)
        state = mean
        made.record.update(seed, t, {BYTES: sent})
    with torch.no_grad():
        for k, v in model.named_parameters():
            v.copy_(state[k])
    return made


def _visited(
    model: nn.Module, problem: SiteProblem, state: Mapping[str, Tensor], part: np.ndarray, lr: float,
    seeds: tuple[int, ...],
) -> dict[str, Tensor]:  # fmt: skip
    """A site's weights after its local steps."""
    with torch.no_grad():
        for k, v in model.named_parameters():
            v.copy_(state[k])
    optimizer, rng = torch.optim.SGD(model.parameters(), lr=lr), np.random.default_rng(seeds)
    for _ in range(LOCAL_STEPS):
        optimizer.zero_grad()
        at = torch.as_tensor(rng.choice(part, BATCH))
        # torch's own has no types.
        problem.losses(model, at).mean().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return {k: v.detach().clone() for k, v in model.named_parameters()}
