"""What the validation texts said in the course of a training, and when it is enough."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from surefoot._run.files import read_json, write_json


@dataclass
class Looks:
    """Looks at the validation texts, kept in a file that a killed process leaves whole.

    Attributes
    ----------
    file
        Where they are kept; None: nowhere.
    patience
        Looks without a lower loss after which it is enough.
    all
        In their order: step, loss, and what else was measured.
    """

    file: Path | None
    patience: int
    all: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def at(cls, file: Path, patience: int, step: int) -> Looks:
        """Those up to a step, to which a training has gone back; of earlier ones the file."""
        found = read_json(file) if file.exists() else []
        return cls(file, patience, [look for look in found if look["step"] <= step])

    def add(self, step: int, **measured: float) -> bool:
        """Another look; whether it is the best."""
        self.all.append({"step": step, **measured})
        if self.file is not None:
            write_json(self.file, self.all)
        return self.best is self.all[-1]

    @property
    def best(self) -> dict[str, Any] | None:
        """The one with the lowest loss, the first of equals."""
        return min(self.all, key=lambda look: float(look["loss"]), default=None)

    @property
    def enough(self) -> bool:
        """Whether the best is too long ago."""
        best = self.best
        return best is not None and len(self.all) - 1 - self.all.index(best) >= self.patience
