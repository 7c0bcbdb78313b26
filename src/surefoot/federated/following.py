"""What a running federation leaves for who watches it: its rounds as they end, and the state of the last."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any


class Rounds:
    """The lines of a file that grows with each round of a run.

    Parameters
    ----------
    path
        The file.
    told
        Called with each line, as what it says in JSON.
    """

    def __init__(self, path: Path, told: Callable[[dict[str, Any]], None] | None) -> None:
        path.unlink(missing_ok=True)
        self.path, self.told, self._at = path, told, 0

    def look(self) -> None:
        """Tell of the lines that are new, and whole."""
        if self.told is None or not self.path.exists():
            return
        lines = self.path.read_text(encoding="utf-8").split("\n")[:-1]
        for line in lines[self._at :]:
            self.told(json.loads(line))
        self._at = len(lines)


def checkpoint_of(out: Path) -> Path:
    """Where the last round of a run is kept until it has ended well."""
    return Path(f"{out}.checkpoint")
