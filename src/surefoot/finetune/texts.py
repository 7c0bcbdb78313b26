"""A file of texts, with labels or without, and its three parts."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from surefoot._numerics.arguments import checked
from surefoot.errors import nearest
from surefoot.finetune.errors import FinetuneError

KINDS = {".csv": "CSV", ".tsv": "TSV", ".jsonl": "JSONL", ".ndjson": "JSONL", ".parquet": "Parquet"}
LABEL = "label"
# More kinds of labels than this are rather a number to be predicted, or an identifier.
MOST_CLASSES = 100
PARTS = ("train", "validation", "test")


@dataclass(frozen=True)
class Texts:
    """Texts, with labels or without.

    Attributes
    ----------
    texts
        As they stand in the file.
    labels
        The place of each one's label in `classes`; None: there are none.
    classes
        The labels there are, in order.
    """

    texts: tuple[str, ...]
    labels: tuple[int, ...] | None
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, rows: Iterable[int]) -> Texts:
        """Some of them."""
        rows = list(rows)
        labels = None if self.labels is None else tuple(self.labels[i] for i in rows)
        return Texts(tuple(self.texts[i] for i in rows), labels, self.classes)

    @property
    def contradictions(self) -> int:
        """How many different texts there are with more than one label."""
        found: dict[str, set[int]] = {}
        for text, label in zip(self.texts, self.labels or (), strict=False):
            found.setdefault(text, set()).add(label)
        return sum(len(labels) > 1 for labels in found.values())

    def split(self, validation: float, test: float, seed: int) -> dict[str, Texts]:
        """Three parts, each with its share of every class; a text that occurs twice is in one of them.

        Parameters
        ----------
        validation, test
            Their shares; a test of 0 is empty.
        seed
            Of the order.

        Raises
        ------
        FinetuneError
            There are too few texts for three parts.
        """
        rng = np.random.default_rng(seed)
        rows: dict[str, list[int]] = {part: [] for part in PARTS}
        for group in self._groups():
            order = [group[i] for i in rng.permutation(len(group))]
            counts = [0, 0]
            for k, share in enumerate((validation, test)):
                counts[k] = max(1, round(share * len(order))) if share else 0
            if sum(counts) >= len(order):
                of = ""
                if self.labels is not None:
                    of = f" of class {self.classes[self.labels[order[0][0]]]!r}"
                raise FinetuneError(
                    f"{len(order)} different texts{of} are too few for training, validation and test; "
                    f"at least {sum(counts) + 1} are needed"
                )
            a, b = counts[0], sum(counts)
            for part, some in (
                ("validation", order[:a]),
                ("test", order[a:b]),
                ("train", order[b:]),
            ):
                rows[part] += [i for same in some for i in same]
        return {part: self.take(sorted(found)) for part, found in rows.items()}

    def _groups(self) -> list[list[list[int]]]:
        """By class, the rows of each different text."""
        by_text: dict[str, list[int]] = {}
        for i, text in enumerate(self.texts):
            by_text.setdefault(text, []).append(i)
        by_class: dict[int, list[list[int]]] = {}
        for rows in by_text.values():
            label = 0 if self.labels is None else self.labels[rows[0]]
            by_class.setdefault(label, []).append(rows)
        return [by_class[k] for k in sorted(by_class)]


@checked
def read_texts(path: str | Path, text: str = "text", label: str | None = None) -> Texts:
    """Read a CSV, TSV, JSONL or Parquet file.

    Parameters
    ----------
    path
        The file; its name says what it is.
    text
        The column of texts.
    label
        The column of labels, words or whole numbers; None: `label` if there is one.

    Returns
    -------
    All rows in their order.

    Raises
    ------
    FinetuneError
        A column is missing, or is not quite named `label`, a text or label is empty, there is one class only,
        or labels are numbers that no class has.
    surefoot.errors.FileFormatError
        The file cannot be read as what its name says.
    """
    columns = _columns(Path(path))
    if not columns or not next(iter(columns.values())):
        raise FinetuneError(f"{path} holds no rows")
    for name, what in ((text, "--text"), (label, "--label")):
        if name is not None and name not in columns:
            near = nearest(name, columns)
            hint = f", probably {near!r}" if near else ""
            raise FinetuneError(
                f"{path} has no column {name!r}; it has {', '.join(map(repr, columns))}: say which with "
                f"{what}{hint}"
            )
    texts = [_text(path, i, value) for i, value in enumerate(columns[text])]
    label = label if label is not None or LABEL not in columns else LABEL
    if label is None:
        meant = next((name for name in columns if name.lower() in (LABEL, f"{LABEL}s")), None)
        if meant not in (None, text):
            # Texts alone would be learned without a word.
            raise FinetuneError(
                f"{path} has no column {LABEL!r}, and it has {meant!r}: say --label {meant}, or leave that "
                "column out of the file to learn the texts alone"
            )
        return Texts(tuple(texts), None, ())
    if label == text:
        raise FinetuneError(f"text and label are both column {text!r}")
    words = [_label(path, i, label, value) for i, value in enumerate(columns[label])]
    classes = _classes(path, label, words)
    return Texts(tuple(texts), tuple(classes.index(w) for w in words), classes)


def _columns(path: Path) -> dict[str, list[Any]]:
    from surefoot.errors import FileFormatError

    kind = KINDS.get(path.suffix.lower())
    if not path.is_file():
        raise FinetuneError(f"{path} is not a file")
    if kind is None:
        raise FinetuneError(f"{path} must end in {', '.join(KINDS)}, got {path.suffix!r}")
    try:
        if kind == "JSONL":
            return _json_lines(path)
        import pandas as pd

        if kind == "Parquet":
            table = pd.read_parquet(path)
        else:
            # Words as they stand: "NA" and "null" are texts.
            table = pd.read_csv(
                path, dtype=str, keep_default_na=False, encoding="utf-8-sig",
                sep="\t" if kind == "TSV" else ",",
            )  # fmt: skip
    except FileFormatError:
        raise
    except Exception as error:  # whatever the readers of the formats raise
        advice = "; save it as UTF-8" if isinstance(error, UnicodeError) else ""
        raise FileFormatError(f"{path} cannot be read as {kind}: {error}{advice}") from error
    if kind == "CSV" and len(table.columns) == 1 and ";" in str(table.columns[0]):
        raise FinetuneError(f"{path} has ';' between its columns: save it with commas")
    return {str(name): list(table[name]) for name in table.columns}


def _json_lines(path: Path) -> dict[str, list[Any]]:
    from surefoot.errors import FileFormatError

    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise FileFormatError(f"{path}, line {number} is no JSON: {error}") from error
        if not isinstance(row, dict):
            raise FileFormatError(f"{path}, line {number} is no object of columns")
        rows.append(row)
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [row.get(name) for row in rows] for name in names}


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value)) or str(value) == "<NA>"


def _text(path: str | Path, row: int, value: Any) -> str:
    if not _is_missing(value) and not isinstance(value, str):
        raise FinetuneError(f"{path}, row {row + 1}: the text is {value!r}, no words")
    if _is_missing(value) or not value.strip():
        raise FinetuneError(f"{path}, row {row + 1}: the text is empty")
    return str(value)


def _label(path: str | Path, row: int, label: str, value: Any) -> str:
    if _is_missing(value) or not str(value).strip():
        raise FinetuneError(f"{path}, row {row + 1}: {label} is empty")
    if isinstance(value, (list, dict)):
        raise FinetuneError(f"{path}, row {row + 1}: {label} is {value!r}, no class")
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).strip()


def _classes(path: str | Path, label: str, words: Sequence[str]) -> tuple[str, ...]:
    counts = Counter(words)
    if len(counts) == 1:
        raise FinetuneError(
            f"{path}: every {label} is {words[0]!r}; there must be two classes or more to tell apart"
        )
    if len(counts) > MOST_CLASSES or len(counts) > len(words) / 2:
        raise FinetuneError(
            f"{path}: {label} has {len(counts)} different values in {len(words)} rows; classes are at most "
            f"{MOST_CLASSES}, and half as many as rows: numbers are not predicted here"
        )
    try:
        return tuple(sorted(counts, key=float))
    except ValueError:
        return tuple(sorted(counts))
