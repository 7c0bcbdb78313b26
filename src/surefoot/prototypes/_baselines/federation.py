"""A federation of adapters from round to round."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from surefoot._numerics.seeds import generator_for
from surefoot.prototypes._baselines.objectives import (
    BiasElimination,
    NearestPrototype,
    contrastive,
    prototypical,
    proximal,
)
from surefoot.prototypes._baselines.plans import plan_of
from surefoot.prototypes._baselines.stack import Objective, Stack, cross_entropy, stacked, train
from surefoot.prototypes.adapter import ResidualAdapter
from surefoot.prototypes.head import ZeroShotHead

Federation = Literal["local", "fedavg", "fedprox", "ditto", "moon", "fedproto", "dbe"]
PERSONAL = ("local", "ditto", "fedproto", "dbe")
"""Methods that end with one model a client."""


class Outcome(NamedTuple):
    """Models, whether they are personal, bytes so far, and the rule of prediction."""

    personal: bool
    bytes_up: int
    bytes_down: int
    stack: Stack
    head: Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Settings:
    """Of every client in every round."""

    epochs: int
    mu: float
    tau: float
    momentum: float
    batch: int
    authors_proto: bool


class FederatedRun:
    """What a federation remembers from round to round."""

    def __init__(
        self,
        method: Federation,
        data: list[tuple[Tensor, Tensor]],
        head: ZeroShotHead,
        start: ResidualAdapter,
        settings: Settings,
        seed: int,
    ) -> None:
        self.method, self.head, self.settings, self.seed = method, head, settings, seed
        self.z, self.y = torch.cat([z for z, _ in data]), torch.cat([y for _, y in data])
        self.sizes = [len(z) for z, _ in data]
        self.share = torch.tensor(self.sizes, dtype=self.z.dtype) / len(self.z)
        self.local = stacked([start] * len(data))
        self.personal = [w.clone() for w in self.local]
        self.previous = self.local
        means = torch.stack([z.mean(0) for z, _ in data])
        self.running, self.common = means, self.share @ means
        self.sent = 4 * sum(p.numel() for p in start.parameters())
        if method == "dbe":
            self.local.append(torch.zeros_like(means))
            self.sent_once = 4 * means.numel()
        if method == "fedproto":
            self.prototypes, self.there, self.uploaded = _class_means(data, head.classes)

    def round(self, r: int, lr: float) -> None:
        """All clients train from what the server sent; the server averages."""
        anchor = [w.clone() for w in self.local]
        objective = self._objective(anchor)
        trained = self._train("clients", r, self.settings.epochs, lr, self.local, objective)
        if self.method == "ditto":
            pulled = proximal(self.head, anchor, self.settings.mu)
            self.personal = self._train("personal", r, 1, lr, self.personal, pulled)
        if isinstance(objective, BiasElimination):
            self.running = objective.running
        self.previous = trained
        if self.method not in ("local", "fedproto"):
            # DBE's vectors stay at their clients.
            trained = [self._averaged(w) for w in trained[:2]] + trained[2:]
        self.local = trained

    def _objective(self, anchor: Stack) -> Objective:
        s = self.settings
        if self.method == "fedprox":
            return proximal(self.head, anchor, s.mu)
        if self.method == "moon":
            return contrastive(self.head, anchor, self.previous, s.mu, s.tau)
        if self.method == "fedproto" and not s.authors_proto:
            return prototypical(self.head, self.prototypes, s.mu)
        if self.method == "dbe":
            return BiasElimination(self.head, self.common, self.running, s.mu, s.momentum)
        return cross_entropy(self.head)

    def _train(
        self, who: str, r: int, epochs: int, lr: float, start: Stack, objective: Objective
    ) -> Stack:
        generators = [generator_for(who, self.seed, i, r) for i in range(len(self.sizes))]
        plan = plan_of(self.sizes, self.settings.batch, generators, epochs=epochs)
        return train(start, self.z, self.y, plan, lr, objective)[len(plan)]

    def _averaged(self, weights: Float[Tensor, "M ..."]) -> Float[Tensor, "M ..."]:
        mean: Tensor = torch.tensordot(self.share, weights, dims=1)
        return mean.expand_as(weights).contiguous()

    def outcome(self, rounds: int) -> Outcome:
        """The models as they are evaluated, and the bytes so far."""
        personal = self.method in PERSONAL
        stack = self.personal if self.method == "ditto" else self.local
        if not personal:
            stack = [w[:1] for w in stack]
        up = down = rounds * self.sent * len(self.sizes)
        head: Callable[[Tensor], Tensor] = self.head
        if self.method == "local":
            up = down = 0
        if self.method == "dbe":
            up, down = up + self.sent_once, down + self.sent_once
        if self.method == "fedproto":
            # The embeddings are frozen: their class means need to travel once.
            up, down = self.uploaded, 4 * self.prototypes.numel() * len(self.sizes)
            head = NearestPrototype(self.prototypes, self.there)
        return Outcome(personal, up, down, [w.clone() for w in stack], head)


def _class_means(
    data: list[tuple[Tensor, Tensor]], classes: int
) -> tuple[Float[Tensor, "classes d"], Tensor, int]:
    """Class means averaged over the clients that have the class, which classes there are, bytes up."""
    total, clients = (
        torch.zeros(classes, data[0][0].shape[1], dtype=data[0][0].dtype),
        torch.zeros(classes),
    )
    for z, y in data:
        has = nn.functional.one_hot(y, classes).to(z.dtype)
        counts = has.sum(0)
        total += (has.T @ z) / counts.clamp(min=1)[:, None]
        clients += counts > 0
    there = clients > 0
    sent = int(clients.sum()) * (4 * total.shape[1] + 8)
    return total / clients.clamp(min=1)[:, None], there, sent
