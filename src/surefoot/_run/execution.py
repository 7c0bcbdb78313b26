"""How a study is executed, as a person says it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from surefoot._numerics.checks import check_number
from surefoot._numerics.refusing import refuse
from surefoot.errors import ArgumentError


@dataclass(frozen=True)
class Execution:
    """How a study is executed; nothing here may change a result."""

    backend: str = "loky"
    """Where seeds run: loky (processes), threading, ray or dask."""
    jobs: int = -1
    """How many seeds run at once; -1: one a core."""
    out: Path = Path("runs")
    """The folder that holds all runs."""
    confidence: float = 0.99
    """Confidence of the verdicts on expectations."""
    until_decided: bool = False
    """Double the seeds of a part for as long as a claim on its mean is UNDECIDED."""
    max_seeds: int | None = None
    """The most seeds that a part gets that way; 300 where nothing is said."""
    address: str | None = None
    """Of a Ray or Dask cluster that shares this file system; by default one is started on this machine."""
    log_to: Literal["mlflow", "tensorboard", "trackio"] | None = None
    """A tracker that gets the records and certificates when a study has ended."""

    def __post_init__(self) -> None:
        check_number("confidence", self.confidence, least=0.5, below=1)
        if self.max_seeds is not None:
            check_number("max_seeds", self.max_seeds, least=1, whole=True)
            if not self.until_decided:
                why = "is for until_decided (--until-decided); for a fixed number give seeds"
                refuse(ArgumentError("max_seeds", why))
        if self.address is not None and self.backend not in ("ray", "dask"):
            refuse(
                ArgumentError(
                    "address", f"is of a cluster, for backend ray or dask, got {self.backend}"
                )
            )
        if self.jobs == 0 or self.jobs < -1:
            refuse(ArgumentError("jobs", f"must be -1 or at least 1, got {self.jobs}"))

    @property
    def most_seeds(self) -> int:
        """`max_seeds`, or its default."""
        return 300 if self.max_seeds is None else self.max_seeds
