"""What happened in a federation, round by round, in its record: who took part, who was lost, bytes, facts."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from surefoot._numerics.arguments import checked
from surefoot._run.files import write_json
from surefoot._showing import showing
from surefoot.certificate import Certificate
from surefoot.errors import SurefootError
from surefoot.federated.guarantee import Theorem, certificates
from surefoot.record import Fact, Record

UNSAID = "not said by every client"
VARIES, MOST = "varies", 16
# What the server knows better than its clients.
OWN = frozenset(
    {"server", "server_lr", "server_momentum", "weighting", "fraction", "min_nodes", "num_partitions",
     "lost", "rejected", "runtime"}
)  # fmt: skip


@dataclass
class Round:
    """One round. `lost` and `rejected` map a partition to its reason, the node's id in it."""

    server_round: int
    partitions: list[int] = field(default_factory=list)
    lost: dict[int, str] = field(default_factory=dict)
    rejected: dict[int, str] = field(default_factory=dict)
    bytes_down: int = 0
    bytes_up: int = 0


@showing
@checked(nan=True)
@dataclass
class FederationHistory:
    """All rounds of a run, and the record that they and the clients' facts go into.

    Parameters
    ----------
    rounds
        One entry a round, in order.
    metrics
        Of the server's evaluation, by round; columns of the record too.
    record
        Columns "participants", "lost", "rejected" at each round, "bytes down" and "bytes up" where something
        travels, and the facts that server and clients said.
    seed
        The run's seed in the record.
    theorems
        What is promised of the run, each with how to measure it.
    secret
        Who took part stays here: neither the record nor `to_dict` says it, or anything that follows from it.
    """

    rounds: list[Round] = field(default_factory=list)
    metrics: dict[int, dict[str, float]] = field(default_factory=dict)
    record: Record = field(default_factory=Record)
    seed: int = 0
    theorems: Sequence[Theorem] = ()
    secret: bool = False
    _replies: int = field(default=0, init=False, repr=False)
    _said: dict[str, int] = field(default_factory=dict, init=False, repr=False)

    def round(self, server_round: int) -> Round:
        """The entry of one round, made when first asked for."""
        for found in reversed(self.rounds):
            if found.server_round == server_round:
                return found
        self.rounds.append(Round(server_round))
        return self.rounds[-1]

    def note(self, **facts: Fact) -> None:
        """Note facts of the server."""
        self.record.note(self.seed, **facts)

    def hear(self, facts: Mapping[str, Iterable[Fact]]) -> None:
        """Note what a client whose reply counts said of its training.

        What it may say of the server is left out; a fact with ever more values "varies".
        """
        self._replies += 1
        for name, values in facts.items():
            if name in OWN:
                continue
            self._said[name] = self._said.get(name, 0) + 1
            for value in values:
                there = self.record.fact(name).all
                known = value in there or len(there) < MOST
                self.record.note(self.seed, **{name: value if known else VARIES})

    def evaluated(self, server_round: int, metrics: Mapping[str, float]) -> None:
        """Keep metrics of a global state beside those that there are; round 0 is the initial one."""
        self.metrics.setdefault(server_round, {}).update(metrics)
        self.record.update(self.seed, server_round, metrics)

    def close(self, server_round: int, **more: float) -> None:
        """Write a finished round into the record, with more columns of it."""
        # One silent client, and nothing is known of all of them.
        for name, count in self._said.items():
            if count < self._replies:
                self.note(**{name: UNSAID})
        if self.secret:
            return
        found = self.round(server_round)
        counts = {
            "participants": len(found.partitions), "lost": len(found.lost),
            "rejected": len(found.rejected),
        }  # fmt: skip
        self.record.update(
            self.seed, server_round, counts | {k.replace("_", " "): v for k, v in more.items()}
        )
        for kind in ("lost", "rejected"):
            for partition in getattr(found, kind):
                self.note(**{kind: int(partition)})

    def certificates(self, confidence: float = 0.99) -> list[Certificate]:
        """What is promised of the run, and what was measured."""
        return certificates(self.record, self.theorems, confidence=confidence, secret=self.secret)

    def refuse_nothing(self) -> None:
        """Refuse a run without a reply that counts: its result is its start, and nobody would know.

        Raises
        ------
        SurefootError
            It gives the reasons of the last round.
        """
        if any(found.partitions for found in self.rounds) or not self.rounds:
            return
        last = self.rounds[-1]
        reasons = [f"partition {p}: {why}" for p, why in {**last.rejected, **last.lost}.items()]
        why = "; ".join(reasons) if reasons else "nobody was asked, or had an example"
        raise SurefootError(f"no reply of any round fitted, nothing was trained; {why}")

    def to_dict(self) -> dict[str, Any]:
        """Rounds, metrics and facts, in JSON's types."""
        return {
            "rounds": [self._told(found) for found in self.rounds],
            "metrics": self.metrics,
            "facts": {name: list(known.all) for name, known in self.record.facts.items()},
        }

    def tell(self, path: str | Path, server_round: int) -> None:
        """Add a finished round to a file of JSON lines, for whoever watches the run."""
        found = self._told(self.round(server_round))
        line = json.dumps(found | {"metrics": self.metrics.get(server_round, {})})
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    def _told(self, found: Round) -> dict[str, Any]:
        return {"server_round": found.server_round} if self.secret else dataclasses.asdict(found)

    def to_state(self) -> dict[str, Any]:
        """All of it, in JSON's types: what `from_state` makes the same history of."""
        found = self.record.table()
        columns = (found[k].to_pylist() for k in ("quantity", "step", "value"))
        return {
            **self.to_dict(), "seed": self.seed, "replies": self._replies, "said": self._said,
            "curves": list(zip(*columns, strict=True)),
        }  # fmt: skip

    @classmethod
    def from_state(cls, state: Mapping[str, Any], record: Record) -> FederationHistory:
        """The history that `to_state` was asked for, in a record that is given.

        Raises
        ------
        KeyError, ValueError, TypeError
            It is no such state.
        """
        history = cls(record=record, seed=int(state["seed"]))
        for found in state["rounds"]:
            by = {
                k: {int(p): str(why) for p, why in found[k].items()} for k in ("lost", "rejected")
            }
            history.rounds.append(Round(**{**found, **by}))
        history.metrics = {int(t): dict(values) for t, values in state["metrics"].items()}
        for name, step, value in state["curves"]:
            record.update(history.seed, int(step), {str(name): float(value)})
        for name, values in state["facts"].items():
            for value in values:
                history.note(**{name: value})
        history._replies, history._said = int(state["replies"]), dict(state["said"])
        return history

    def write(self, path: str | Path, **more: Any) -> None:
        """As JSON, with more entries beside `to_dict`'s."""
        write_json(path, {**self.to_dict(), **more})


RoundReport, FederationReport = Round, FederationHistory
