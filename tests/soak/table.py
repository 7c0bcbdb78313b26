"""What a soak counts, and when it stops."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

# A trial ends in one of these words; the first two are as it should be.
GOOD = ("named", "whole")
HEAD = "| faults | wanted | tried | named | whole | lost | silent | tracebacks | minutes |"
Trials = Iterator[tuple[str, str]]
"""Endless pairs: the outcome of one trial, and what was tried and said."""


@dataclass
class Row:
    """One kind of fault: how many were wanted, and what became of those that were reached.

    `named` was told by an error or a state, `whole` changed nothing or was made good, `lost` is neither: of
    these `silent` went unsaid and `traceback` ended in somebody else's error. `excused` says why a kind
    cannot be without silent ones.
    """

    kind: str
    wanted: int
    excused: str = ""
    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)
    minutes: float = 0.0
    missing: str = ""

    @property
    def tried(self) -> int:
        return sum(self.counts.values())

    @property
    def lost(self) -> int:
        return self.tried - sum(self.counts[word] for word in GOOD)

    @property
    def at_fault(self) -> int:
        """What is lost and not excused."""
        return self.lost - (self.counts["silent"] if self.excused else 0)

    def note(self, outcome: str, what: str) -> None:
        self.counts[outcome] += 1
        self.examples.setdefault(outcome, what)

    def line(self) -> str:
        if self.missing:
            return f"| {self.kind} | {self.wanted} | {self.missing} | | | | | | |"
        counts = self.counts
        kind = f"{self.kind} ({self.excused})" if self.excused else self.kind
        cells = (
            kind, self.wanted, self.tried, counts["named"], counts["whole"], self.lost, counts["silent"],
            counts["traceback"], f"{self.minutes:.1f}",
        )  # fmt: skip
        return f"| {' | '.join(map(str, cells))} |"


def run(row: Row, trials: Trials, seconds: float) -> Row:
    """Take trials until `row.wanted` are counted or `seconds` have passed; one that has begun is ended."""
    begun = time.monotonic()
    while row.tried < row.wanted and time.monotonic() - begun < seconds:
        found = next(trials, None)
        if found is None:
            break
        row.note(*found)
    close = getattr(trials, "close", None)
    if close is not None:
        close()
    row.minutes = (time.monotonic() - begun) / 60
    return row


def table(rows: list[Row]) -> str:
    return "\n".join([HEAD, "|" + " --- |" * 9, *(row.line() for row in rows)])
