"""Damage to files, and what a reader makes of it: named, harmless, silent, or an error of somebody else.

`try_damage` is what the tests and the soak share; `tests.faults.formats` lists what surefoot reads back.
"""

from __future__ import annotations

import random
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from surefoot.errors import SurefootError

WAYS = ("flip", "cut", "add", "blank")


@dataclass(frozen=True)
class Kind:
    """A file format: how files of it are made, and how they are read.

    `make(folder)` writes them and gives back those that surefoot reads; `read(folder)` gives back all that
    was read in a form that == compares. `heals` is for caches, which are made anew where they are damaged.
    `unsealed` says why damage to values cannot be seen: such a kind may be read wrongly, never by a
    foreign error.
    """

    name: str
    make: Callable[[Path], list[Path]]
    read: Callable[[Path], object]
    unsealed: str = ""
    heals: bool = False


@dataclass
class Tally:
    """What became of each damage."""

    kind: str
    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)

    @property
    def tried(self) -> int:
        return sum(self.counts.values())

    @property
    def named(self) -> int:
        return self.counts["named"]

    @property
    def harmless(self) -> int:
        return self.counts["harmless"]

    @property
    def lost(self) -> int:
        return self.tried - self.named - self.harmless

    def note(self, outcome: str, what: str) -> None:
        self.counts[outcome] += 1
        self.examples.setdefault(outcome, what)

    def row(self) -> str:
        lost = ", ".join(f"{n} {k}" for k, n in sorted(self.counts.items()) if k not in GOOD)
        cells = (
            self.kind,
            self.tried,
            self.named,
            self.harmless,
            f"{self.lost} {lost and f'({lost})'}",
        )
        return " | ".join(map(str, cells)).strip()


GOOD = ("named", "harmless")
KINDS_OF_LOSS = ("silent", "traceback", "unnamed")
HEAD = "kind | tried | named | harmless | lost"


def damaged(content: bytes, way: str, rng: random.Random) -> bytes:
    """One bit flipped, the end cut off, something added, or a stretch that a disk gave back as zeros."""
    if way == "add" or not content:
        return content + rng.randbytes(rng.randint(1, 64))
    if way == "cut":
        return content[: rng.randrange(len(content))]
    at = rng.randrange(len(content))
    found = bytearray(content)
    if way == "flip":
        found[at] ^= 1 << rng.randrange(8)
    else:
        end = min(len(found), at + rng.randint(8, 512))
        found[at:end] = bytes(end - at)
    return bytes(found)


def damages(seed: int, flips: int, others: int) -> Iterator[tuple[str, random.Random]]:
    """A way and a generator for each trial, the same for the same seed."""
    for i in range(flips + 3 * others):
        way = "flip" if i < flips else WAYS[1 + i % 3]
        yield way, random.Random(f"{seed} {i}")


def outcome(kind: Kind, folder: Path, file: Path, whole: object) -> tuple[str, str]:
    """What reading gives now: a word of `Tally`, and what was said."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            found = kind.read(folder)
        except SurefootError as error:
            text = f"{type(error).__name__}: {error}"
            return ("named" if file.name in str(error) else "unnamed"), text
        except Exception as error:  # what it is, is what is asked
            ours = isinstance(error, ValueError) and str(file) in str(error)
            return "named" if ours else "traceback", f"{type(error).__name__}: {error}"
    if found == whole:
        return "harmless", ""
    return "silent", "; ".join(str(w.message) for w in said)[:200]


def try_damage(kind: Kind, folder: Path, seed: int, flips: int, others: int) -> Tally:
    """Damage the files of a kind one by one, read each time, and put them back.

    Parameters
    ----------
    kind
        What to make in `folder`.
    folder
        Empty.
    seed
        Of the damages.
    flips, others
        How many single bits; how many each of cuts, additions and blanked stretches.
    """
    files, tally = kind.make(folder), Tally(kind.name)
    # All that is there, as a cache that heals writes what it was not given.
    contents = {path: path.read_bytes() for path in files}
    whole = kind.read(folder)
    for way, rng in damages(seed, flips, others):
        file = rng.choice(files)
        now = damaged(contents[file], way, rng)
        if now == contents[file]:
            continue
        file.write_bytes(now)
        result, text = outcome(kind, folder, file, whole)
        tally.note(result, f"{way} {file.name}: {text}")
        file.write_bytes(contents[file])
    return tally
