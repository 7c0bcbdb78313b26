"""Put runs side by side, on the seeds that they share."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import tyro

from surefoot._numerics.checks import check_number

NAME = "compare"


@dataclass(frozen=True)
class Compare:
    """Put runs side by side: what each ended with, and the paired differences with their intervals.

    Seeds are paired by their number. The first run is what the others are compared with.
    """

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Two or more run folders."""
    quantity: tuple[str, ...] = ()
    """Quantities of the records; by default those of the certificates."""
    confidence: float = 0.99
    """Confidence of each interval."""
    json: bool = False
    """Print JSON, and write no page."""

    def __post_init__(self) -> None:
        check_number("confidence", self.confidence, least=0.5, below=1)

    def __call__(self) -> int:
        from surefoot.comparing.comparison import compare
        from surefoot.comparing.page import print_comparison, write_comparison

        found = compare(self.runs, quantities=self.quantity, confidence=self.confidence)
        if self.json:
            print(json.dumps(found.to_dict(), indent=1, allow_nan=False))
        else:
            print_comparison(found)
            print(f"report: {write_comparison(found)}")
        return 0


COMMAND = Compare
