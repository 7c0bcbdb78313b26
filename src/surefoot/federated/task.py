"""What an app must say about its problem; everything else is the floor's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor

from surefoot._numerics.arguments import checked
from surefoot._numerics.checks import check_number
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
    """

    partition: int
    num_partitions: int
    server_round: int
    seed: int
    memory: State = field(default_factory=dict)
    extra: State = field(default_factory=dict)
    record: Record = field(default_factory=Record)

    def __post_init__(self) -> None:
        check_number("num_partitions", self.num_partitions, least=1, whole=True)
        check_number("partition", self.partition, least=0, below=self.num_partitions, whole=True)
        check_number("server_round", self.server_round, least=0, whole=True)

    def note_memory(self) -> None:
        """Note in the record that the client keeps something: a run that goes on elsewhere would lack it."""
        if self.memory:
            self.record.note(memory="kept by clients")


class Task(Protocol):
    """A federated problem: used by the apps on every runtime, and by the sequential reference.

    A task may have `theorems()`, pairs of a Guarantee and how to measure its quantity: the certificates of
    its federations then speak of them.
    """

    def initial(self, seed: int) -> State:
        """The global state before the first round."""
        ...

    def train(self, state: State, visit: Visit) -> tuple[State, int, dict[str, float]]:
        """A client's new state (same names, shapes, dtypes), its examples, its metrics.

        `state` may be changed in place.
        """
        ...

    def evaluate(self, state: State) -> dict[str, float]:
        """Metrics of a global state, on the server; {} where there is nothing to evaluate on."""
        ...


MakeTask = Callable[[Mapping[str, Any]], Task]
