"""What happened in a federation, round by round: who took part, who was lost, bytes on the wire."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path

from surefoot._run.files import write_json


@dataclass
class RoundReport:
    """One round. `lost` and `rejected` map a partition to its reason, the node's id in it."""

    server_round: int
    partitions: list[int] = field(default_factory=list)
    lost: dict[int, str] = field(default_factory=dict)
    rejected: dict[int, str] = field(default_factory=dict)
    bytes_down: int = 0
    bytes_up: int = 0


@dataclass
class FederationReport:
    """All rounds of a run; `metrics` are those of the server's evaluation."""

    rounds: list[RoundReport] = field(default_factory=list)
    metrics: dict[int, dict[str, float]] = field(default_factory=dict)

    def round(self, server_round: int) -> RoundReport:
        """The report of one round, made when first asked for."""
        for found in self.rounds:
            if found.server_round == server_round:
                return found
        self.rounds.append(RoundReport(server_round))
        return self.rounds[-1]

    def write(self, path: str | Path) -> None:
        """As JSON."""
        write_json(path, dataclasses.asdict(self))
