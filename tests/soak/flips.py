"""Flipped bits in every file that surefoot reads back, one format after the other."""

from __future__ import annotations

import random
from pathlib import Path

from tests.faults.damage import Kind, damaged, outcome
from tests.faults.formats import KINDS
from tests.soak.table import Trials

SEALED = {name: kind for name, kind in KINDS.items() if not kind.unsealed}
UNSEALED = {name: kind for name, kind in KINDS.items() if kind.unsealed}
WORDS = {"harmless": "whole", "unnamed": "lost"}


def flips(kinds: dict[str, Kind], root: Path, seed: int) -> Trials:
    """One bit of one file a trial, in turn over the formats; the file is put back after each."""
    made = {}
    for i, (name, kind) in enumerate(kinds.items()):
        folder = root / str(i)
        folder.mkdir(parents=True)
        files = kind.make(folder)
        made[name] = folder, {path: path.read_bytes() for path in files}, kind.read(folder)
    number = 0
    while True:
        for name, kind in kinds.items():
            folder, contents, whole = made[name]
            rng = random.Random(f"{seed} {number} {name}")
            file = rng.choice(list(contents))
            file.write_bytes(damaged(contents[file], "flip", rng))
            word, text = outcome(kind, folder, file, whole)
            file.write_bytes(contents[file])
            yield WORDS.get(word, word), f"{name}: {text}"
        number += 1
