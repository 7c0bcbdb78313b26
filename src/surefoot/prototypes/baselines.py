"""What one-round prototypes are compared with, on the same embeddings, head and adapter.

Zero-shot needs no training: `accuracy_matrix(nn.Identity(), tests, head)`. Centralised training is
`train_pooled` on all clients' records.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

from surefoot._numerics.arguments import checked
from surefoot._numerics.checks import check_choice, check_number
from surefoot._numerics.seeds import generator_for
from surefoot.prototypes._baselines.federation import FederatedRun, Federation, Settings
from surefoot.prototypes._baselines.plans import plan_of
from surefoot.prototypes._baselines.stack import (
    Stack,
    accuracies,
    cross_entropy,
    stacked,
    train,
    unstacked,
)
from surefoot.prototypes._client.inputs import labelled
from surefoot.prototypes.accuracy import AccuracyMatrix
from surefoot.prototypes.adapter import ResidualAdapter
from surefoot.prototypes.head import ZeroShotHead

Client = tuple[Any, Any]


@checked(nan=True)
@dataclass(frozen=True, eq=False)
class Baseline:
    """The models after some rounds, or steps, and what they cost.

    Attributes
    ----------
    done
        Rounds of a federation, steps of pooled training.
    personal
        Whether there is a model for each client, or one for all.
    bytes_up
        Of all clients so far.
    bytes_down
        The same, without the head.
    """

    done: int
    personal: bool
    bytes_up: int
    bytes_down: int
    _stack: Stack
    _head: Callable[[Tensor], Tensor]

    def accuracy(self, tests: Sequence[Client]) -> AccuracyMatrix:
        """Of every model on every domain, with the method's own rule of prediction."""
        return AccuracyMatrix(accuracies(self._stack, self._head, tests).numpy())

    def adapters(self) -> list[ResidualAdapter]:
        """One a client, or one; without DBE's vector and FedProto's rule."""
        return unstacked(self._stack)


@checked
def train_pooled(
    feats: Float[Tensor, "N d"],
    y: Int[Tensor, " N"],
    head: ZeroShotHead,
    lr: float = 1e-3,
    steps: Sequence[int] = (1000,),
    batch_size: int = 10,
    seed: int = 0,
    hidden: int | None = None,
) -> list[Baseline]:
    """One adapter on rows in one place, as `train_global_adapter(steps=...)` does, looked at on the way.

    Parameters
    ----------
    feats, y
        Rows and their classes: all clients' records (centralised training), or features drawn for them.
    head
        The frozen classifier.
    lr
        Constant step size.
    steps
        Steps after which the adapter is looked at.
    batch_size
        Rows a step.
    seed
        Of initial weights and batches.
    hidden
        Of the adapter, by default d // 4.

    Raises
    ------
    ValueError
        Rows that are not finite or do not fit the head, or a number outside its range.
    """
    return train_pooled_many([(feats, y)], head, lr, steps, batch_size, seed, hidden)[0]


def train_pooled_many(
    tables: Sequence[Client],
    head: ZeroShotHead,
    lr: float = 1e-3,
    steps: Sequence[int] = (1000,),
    batch_size: int = 10,
    seed: int = 0,
    hidden: int | None = None,
) -> list[list[Baseline]]:
    """`train_pooled` on several tables side by side, which is faster; table -> looks.

    Parameters
    ----------
    tables
        Rows and classes of each.
    head, lr, steps, batch_size, seed, hidden
        As there, and the same for all tables.
    """
    wanted = [check_number("steps", s, least=1, whole=True) for s in steps]
    size = check_number("batch_size", batch_size, least=1, whole=True)
    rate = check_number("lr", lr, above=0)
    if not wanted or not tables:
        raise ValueError("steps and tables must hold at least one each")
    data = [labelled(z, y, head.d, head.classes) for z, y in tables]
    start = stacked(
        [ResidualAdapter(head.d, hidden, seed=seed, dtype=data[0][0].dtype)] * len(data)
    )
    generators = [generator_for("server batches", seed) for _ in data]
    plan = plan_of([len(z) for z, _ in data], size, generators, steps=max(wanted))
    z, y = torch.cat([z for z, _ in data]), torch.cat([y for _, y in data])
    found = train(start, z, y, plan, rate, cross_entropy(head), wanted)
    return [
        [Baseline(s, False, 0, 0, [w[m : m + 1] for w in found[s]], head) for s in wanted]
        for m in range(len(data))
    ]


@checked
def federate(
    method: Federation,
    clients: Sequence[Client],
    head: ZeroShotHead,
    rounds: int = 1,
    lr: float | Callable[[int], float] = 1e-3,
    local_epochs: int = 1,
    mu: float = 1.0,
    *,
    tau: float = 0.5,
    momentum: float = 0.1,
    authors_proto: bool = False,
    batch_size: int = 32,
    seed: int = 0,
    hidden: int | None = None,
) -> list[Baseline]:
    """A federation of adapters in rounds, each client with a fresh AdamW; one `Baseline` a round.

    Models are averaged with the clients' numbers of records as weights.

    Parameters
    ----------
    method
        "fedavg" (arXiv 1602.05629), "fedprox" (1812.06127), "ditto" (2012.04221, one personal epoch a
        round), "moon" (2103.16257), "fedproto" (2105.00243: class means of the embeddings travel, models
        do not), "dbe" (2311.14975), or "local": nothing travels.
    clients
        (N_i, d) embeddings and (N_i,) classes of each.
    head
        The frozen classifier.
    rounds
        How many.
    lr
        Step size, or round (from 0) -> step size.
    local_epochs
        Of each client in each round.
    mu
        Weight of the method's own term: FedProx's and Ditto's distance, MOON's contrast, FedProto's distance
        to the prototypes, DBE's pull to the common mean. No effect on "fedavg" and "local".
    tau
        MOON's temperature.
    momentum
        Of DBE's running mean.
    authors_proto
        FedProto as in the authors' file of arXiv 2410.07738, whose prototype loss is commented out.
    batch_size
        Records a step.
    seed
        Of initial weights and batches.
    hidden
        Of the adapters, by default d // 4.

    Raises
    ------
    ValueError
        No such method, no clients, records that do not fit the head, or a number outside its range.
    """
    check_choice("method", method, get_args(Federation))
    if not clients:
        raise ValueError("clients must hold at least one, got none")
    settings = Settings(
        check_number("local_epochs", local_epochs, least=1, whole=True),
        check_number("mu", mu, least=0),
        check_number("tau", tau, above=0),
        check_number("momentum", momentum, above=0, most=1),
        check_number("batch_size", batch_size, least=1, whole=True),
        bool(authors_proto),
    )
    rounds = check_number("rounds", rounds, least=1, whole=True)
    data = [labelled(z, y, head.d, head.classes) for z, y in clients]
    start = ResidualAdapter(head.d, hidden, seed=seed, dtype=data[0][0].dtype)
    run = FederatedRun(method, data, head, start, settings, seed)
    found = []
    for r in range(rounds):
        rate = lr(r) if callable(lr) else lr
        run.round(r, check_number("lr", rate, above=0))
        found.append(Baseline(r + 1, *run.outcome(r + 1)))
    return found
