"""What an app must say about its problem; everything else is the floor's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Generator, Tensor

from surefoot._numerics.arguments import checked
from surefoot._numerics.checks import check_number
from surefoot._numerics.secret import is_secret, secret_generator
from surefoot.record import Record

State = dict[str, Tensor]


@checked
@dataclass
class Visit:
    """One client in one round.

    Parameters
    ----------
    partition, num_partitions, server_round
        Which client, of how many, in which round (from 1).
    seed
        From (run, round, partition).
    memory
        The client's own, which stays with it between rounds (momentum, a personal head); what a task puts
        there is never sent.
    extra
        Arrays of the server that are no part of the model.
    record
        Where the client's optimizer writes what it does: its facts travel with the reply and go into the
        federation's record, its numbers stay.
    secret
        For noise and coins of a private mechanism: its state is the operating system's, and it is never sent.
        Not `seed`, which follows from the run's seed, which every client is told.
    """

    partition: int
    num_partitions: int
    server_round: int
    seed: int
    memory: State = field(default_factory=dict)
    extra: State = field(default_factory=dict)
    record: Record = field(default_factory=Record)
    secret: Generator = field(default_factory=secret_generator, repr=False)

    def __post_init__(self) -> None:
        check_number("num_partitions", self.num_partitions, least=1, whole=True)
        check_number("partition", self.partition, least=0, below=self.num_partitions, whole=True)
        check_number("server_round", self.server_round, least=0, whole=True)

    def note_memory(self) -> None:
        """Note in the record that the client keeps something: a run that goes on elsewhere would lack it."""
        if self.memory:
            self.record.note(memory="kept by clients")

    def note_secret(self, *uses: str) -> None:
        """Note what `secret` was used for, as "noise" or "sampling": true where nobody has seeded it."""
        self.record.note(**{f"secret_{use}": is_secret(self.secret) for use in uses})


class Task(Protocol):
    """A federated problem: used by the apps on every runtime, and by the sequential reference.

    A task may have `theorems()`, pairs of a Guarantee and how to measure its quantity: the certificates of
    its federations then speak of them. Where a client's reply is no new state it has `reply(state)`, whose
    arrays have the names, shapes and dtypes of a reply to that state, and `merged(state, mean)`, the state
    that the mean of the replies stands for; the server's rule goes from the old state towards that one.
    """

    def initial(self, seed: int) -> State:
        """The global state before the first round."""
        ...

    def train(self, state: State, visit: Visit) -> tuple[State, int, dict[str, float]]:
        """A client's new state (or its `reply`: same names, shapes, dtypes), its examples, its metrics.

        `state` may be changed in place.
        """
        ...

    def evaluate(self, state: State) -> dict[str, float]:
        """Metrics of a global state, on the server; {} where there is nothing to evaluate on."""
        ...


def reply_of(task: Task | None, state: State) -> State:
    """What a reply to a global state is like: the state itself where the task says nothing else."""
    # A task need not have it, and one that is None has not.
    found: State = task.reply(state) if _has_reply(task) else state  # type: ignore[union-attr]
    return found


def merged(task: Task | None, state: State, mean: State) -> State:
    """The state that a mean of replies stands for."""
    # As above.
    found: State = task.merged(state, mean) if _has_reply(task) else mean  # type: ignore[union-attr]
    return found


def _has_reply(task: Task | None) -> bool:
    there = [callable(getattr(task, name, None)) for name in ("reply", "merged")]
    if any(there) and not all(there):
        raise TypeError(
            f"{type(task).__name__} must have both reply(state) and merged(state, mean), or neither"
        )
    return all(there)


MakeTask = Callable[[Mapping[str, Any]], Task]
