"""What the contract needs to know of a guarantee: a record on which it must hold, and what spoils it.

A member is data: the columns and the facts that a run which keeps the promise would have written, the columns
of one that broke it, and the facts under which nothing is promised.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from surefoot import Guarantee, Record
from surefoot.record import Fact

Columns = Mapping[str, Sequence[float]]


@dataclass(frozen=True)
class Promise:
    """One factory, with the constants of its problem.

    `columns` are values at steps 0, 1, ..., or from the step that `starts` says. `facts` are those that its
    conditions need, "arm.name" for one of several arms; `others` change nothing that is assumed. `fault`
    replaces columns so that the promise is broken. `spoils` are single facts that void it. `numbers` names
    the assumptions that columns decide, which therefore hold where no fact is recorded, and `unmeasured`
    those that nothing here can decide. `spread` is by how much, relatively, the values of the seeds lie
    apart where a mean over them is judged. `why` says why no fact can void it, where none can.
    """

    factory: Callable[..., Guarantee | tuple[Guarantee, ...]]
    make: Callable[[], Guarantee]
    columns: Columns
    fault: Columns
    facts: Mapping[str, Fact] = field(default_factory=dict)
    spoils: Sequence[Mapping[str, Fact]] = ()
    others: Mapping[str, Fact] = field(default_factory=dict)
    starts: Mapping[str, int] = field(default_factory=dict)
    numbers: tuple[str, ...] = ()
    unmeasured: tuple[str, ...] = ()
    seeds: int = 2
    spread: float = 0.0
    why: str = ""

    def __str__(self) -> str:
        return (
            f"{self.factory.__module__.split('.')[1]}.{self.factory.__name__}: {self.make().name}"
        )

    def record(
        self,
        columns: Columns | None = None,
        without: Sequence[str] = (),
        instead: Mapping[str, Fact] | None = None,
    ) -> Record:
        """What a run would have written: with other columns, without some facts, or with others instead."""
        record, judged = Record(), self.make().quantity
        for seed in range(self.seeds):
            apart = self.spread * (2 * seed / max(self.seeds - 1, 1) - 1)
            for name, values in {**self.columns, **(columns or {})}.items():
                first = self.starts.get(name, 0)
                # More apart with every step: what is relative to the start must differ too.
                own = [v * (1 + apart * i * (name == judged)) for i, v in enumerate(values, 1)]
                record.extend(seed, name, own, range(first, first + len(own)))
            for key, value in {**self.facts, **self.others, **(instead or {})}.items():
                if key not in without:
                    of, _, name = key.rpartition(".")
                    record.note(seed, of, **{name: value})
        return record
