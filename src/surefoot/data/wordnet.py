"""WordNet's nouns: what they mean, what they are called, what kinds of them there are."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from surefoot._numerics.arguments import checked
from surefoot.errors import FileFormatError

# lexnames(5WN): the lexicographer files that hold nouns
CATEGORIES = {
    3: "Tops", 4: "act", 5: "animal", 6: "artifact", 7: "attribute", 8: "body", 9: "cognition",
    10: "communication", 11: "event", 12: "feeling", 13: "food", 14: "group", 15: "location",
    16: "motive", 17: "object", 18: "person", 19: "phenomenon", 20: "plant", 21: "possession",
    22: "process", 23: "quantity", 24: "relation", 25: "shape", 26: "state", 27: "substance",
    28: "time",
}  # fmt: skip


@checked(nan=True)
@dataclass(frozen=True)
class WordNet:
    """The nouns of one version of WordNet."""

    version: str
    """As its licence states it: "3.1" from npm, "3.0" from Debian. Their contents differ."""
    nouns: pd.DataFrame
    """One row per synset, in file order. Columns: `offset` (int64, the synset's identifier within
    this version), `category` (str, the lexicographer file), `lemmas` (tuple of str, the first the
    most usual, with spaces), `hyponyms` (tuple of int: the offsets of its kinds, pointer `~`, not
    the instances `~i`), `gloss` (str, the definition and then quoted examples)."""


def read(path: Path) -> WordNet:
    """The nouns of a `data.noun` file, or of a folder that holds one (format: wndb(5WN))."""
    file = path if path.is_file() else path / "data.noun"
    if not file.is_file():
        raise FileFormatError(f"{path} holds no data.noun")
    text = file.read_text(encoding="utf-8")
    version = re.search(r"WordNet (\d+\.\d+) Copyright", text)
    if version is None:
        raise FileFormatError(f"{file} is not a WordNet database: it bears no licence of WordNet")
    try:
        # lines of the licence begin with spaces, where a synset has its offset
        rows = [_synset(line) for line in text.split("\n") if line and not line.startswith(" ")]
    except (ValueError, IndexError, KeyError) as error:
        raise FileFormatError(f"{file} is damaged: {error}") from error
    names = ["offset", "category", "lemmas", "hyponyms", "gloss"]
    return WordNet(version[1], pd.DataFrame(rows, columns=names))


def _synset(line: str) -> tuple[int, str, tuple[str, ...], tuple[int, ...], str]:
    data, gloss = line.split(" | ", 1)
    fields = data.split()
    # the count of words is hexadecimal, the count of pointers decimal
    end = 4 + 2 * int(fields[3], 16)
    lemmas = tuple(word.replace("_", " ") for word in fields[4:end:2])
    last = end + 1 + 4 * int(fields[end])
    pointers = [fields[i : i + 4] for i in range(end + 1, last, 4)]
    hyponyms = tuple(int(offset) for symbol, offset, *_ in pointers if symbol == "~")
    return int(fields[0]), CATEGORIES[int(fields[1])], lemmas, hyponyms, gloss.strip()
