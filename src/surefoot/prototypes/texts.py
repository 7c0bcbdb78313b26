"""Texts of several domains with common classes, and prompts that name each class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int

from surefoot._numerics.arguments import checked
from surefoot.data.frames import column, read_frame
from surefoot.errors import FileFormatError

TEMPLATES = (
    "{}",
    "this is about {}",
    "a text about {}",
    "an example of {}",
    "the topic is {}",
)


@checked
@dataclass(frozen=True, eq=False)
class DomainTexts:
    """Labelled texts of several domains.

    Parameters
    ----------
    texts
        N of them.
    labels, domains
        (N,) indices into `classes` and `domain_names`.
    classes, domain_names
        Their names.
    prompts
        One tuple of texts a class, as many for each: what the zero-shot head is made of.

    Raises
    ------
    ValueError
        Lengths or indices that contradict each other.
    """

    texts: tuple[str, ...]
    labels: Int[np.ndarray, " N"]
    domains: Int[np.ndarray, " N"]
    classes: tuple[str, ...]
    domain_names: tuple[str, ...]
    prompts: tuple[tuple[str, ...], ...]

    def __post_init__(self) -> None:
        for name, given, names in (
            ("labels", self.labels, self.classes),
            ("domains", self.domains, self.domain_names),
        ):
            if given.shape != (len(self.texts),) or not len(given):
                raise ValueError(
                    f"{name} must be ({len(self.texts)},), one a text, got {given.shape}"
                )
            if not names:
                of = "classes" if name == "labels" else "domain_names"
                raise ValueError(f"{of} must hold at least one name, got none")
            if given.min() < 0 or given.max() >= len(names):
                raise ValueError(
                    f"{name} must be 0 to {len(names) - 1}, got {given.min()} to {given.max()}"
                )
        counts = {len(p) for p in self.prompts}
        if len(self.prompts) != len(self.classes) or len(counts) != 1 or 0 in counts:
            raise ValueError(
                f"prompts must be equally many texts for each of {len(self.classes)} classes, got "
                f"{[len(p) for p in self.prompts]}"
            )

    def __len__(self) -> int:
        return len(self.texts)


@checked(leave=("path",))
def domain_texts(path: str | Path, templates: Sequence[str] = TEMPLATES) -> DomainTexts:
    """A table of one's own: columns text, label and domain; classes and domains in alphabetical order.

    Parameters
    ----------
    path
        CSV, TSV, JSON lines, Parquet or Arrow file, or a folder of them.
    templates
        Sentences with one {} where the name of the class goes, as it stands in the column.

    Raises
    ------
    surefoot.errors.FileFormatError
        A column is missing, or a row of it is empty.
    ValueError
        A template without {}.
    """
    if not isinstance(path, (str, Path)):
        raise ValueError(
            f"path must name a table, got {type(path).__name__}; write a frame with to_csv first, or make a "
            "DomainTexts"
        )
    file = Path(path).expanduser()
    wrong = [t for t in templates if t.count("{}") != 1]
    if wrong or not templates:
        raise ValueError(
            f"templates must be sentences with one {{}} for the class, got {list(templates)}"
        )
    frame = read_frame(file)
    columns = [column(frame, (name,), file) for name in ("text", "label", "domain")]
    for c in columns:
        if len(empty := np.flatnonzero(c.isna() | (c.astype(str).str.strip() == ""))):
            raise FileFormatError(
                f"{file}: column {c.name!r} is empty in row {empty[0] + 1}; in a CSV the words NA, null, "
                "None and nan alone read as empty too"
            )
    if not len(frame):
        raise FileFormatError(f"{file} holds no rows")
    text, label, domain = (c.astype(str).str.strip() for c in columns)
    classes, labels = np.unique(label.to_numpy(dtype=str), return_inverse=True)
    names, domains = np.unique(domain.to_numpy(dtype=str), return_inverse=True)
    found = tuple(map(str, classes))
    prompts = prompts_of(found, templates)
    return DomainTexts(tuple(text), labels, domains, found, tuple(map(str, names)), prompts)


def prompts_of(phrases: Sequence[str], templates: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """Every template filled with the phrase of each class."""
    return tuple(tuple(t.replace("{}", phrase) for t in templates) for phrase in phrases)
