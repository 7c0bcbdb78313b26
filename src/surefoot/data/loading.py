"""What there is, where it is, and how it is fetched, checked and read."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from surefoot._numerics.arguments import checked
from surefoot.data import places, reads, store
from surefoot.data.archives import unpack
from surefoot.data.catalogue import CATALOGUE, Item, find
from surefoot.data.download import download as get_archive
from surefoot.data.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

    from surefoot.data.images import Images
    from surefoot.data.models import LanguageModel
    from surefoot.data.tables import Table
    from surefoot.data.trials import Trials, TrialSets
    from surefoot.data.wordnet import WordNet


@checked(nan=True)
@dataclass(frozen=True)
class Entry:
    """One line of `surefoot data list`."""

    name: str
    """What `load` and `fetch` take."""
    what: str
    """What it holds, in a few words."""
    licence: str
    """Its own, not that of the package in which it is found."""
    source: str
    """The package, with its version."""
    size_bytes: int | None
    """Of the files that are kept; None when they are not here and nobody can know."""
    sha256: str | None
    """Of the pinned archive; None when there is none to download."""
    present: bool
    """Whether every file is here with its right size; `verify` also hashes them."""
    location: Path | None
    """The folder, or None when it is not here."""


@checked
def available() -> list[Entry]:
    """Every data set and model there is, and whether it is on this machine."""
    entries = []
    for item in CATALOGUE.values():
        here = places.glance(item)
        pinned = item.files or (item.debian.files if item.debian else {})
        size = here[1] if here else sum(file.size for file in pinned.values()) or None
        entries.append(
            Entry(
                item.name, item.what, item.licence, item.source, size,
                item.archive.content.sha256 if item.archive else None,
                here is not None, here[0] if here else None,
            )
        )  # fmt: skip
    return entries


@checked
def fetch(name: str, progress: Callable[[str], None] | None = None) -> Path:
    """Make sure that `name` is on this machine, with the pinned hashes, and return its folder.

    Safe for several processes at once: one downloads, the others wait for it. A failure leaves
    nothing behind; a damaged copy is replaced.

    Parameters
    ----------
    name
        A name of `available`.
    progress
        Called with one line of text at each stage.

    Raises
    ------
    UnknownDataError
        There is no such name.
    DataError
        No network, a full disk, a file that is not the pinned one.
    """
    item = find(name)
    say = progress or _silent
    if item.bundled:
        reads.note(item)
        return _bundled(item)
    where = places.locate(item, _silent)
    if where is None and item.archive is None:
        raise DataError(f"{name} is not on this machine; {_instead(item)}")
    if where is None:
        with store.exclusive(name, say):
            # another process may have finished while this one waited
            where = places.locate(item, say) or _download(item, say)
    say(f"{name} is in {where}")
    reads.note(item, where)
    return where


def _download(item: Item, say: Callable[[str], None]) -> Path:
    assert item.archive is not None
    with store.staging(item.name) as work:
        archive = get_archive(item.archive, work, say, _instead(item))
        # made by mkdir and not by mkdtemp, so that it gets the permissions the user's umask gives
        kept = work / "kept"
        kept.mkdir()
        unpack(archive, item.archive.folder, item.files, kept)
        return store.put(kept, item.name, work)


@checked
def verify(name: str) -> Path:
    """Hash the files of `name` anew and return their folder.

    Raises a DataError when they are not on this machine or not the pinned ones, and
    UnknownDataError when there is no such name. The sets inside scikit-learn have no pinned hash:
    for them only presence is checked.
    """
    item = find(name)
    return _bundled(item) if item.bundled else places.verified(item)


@overload
def load(
    name: Literal["digits", "diabetes", "breast_cancer", "wine", "iris"],
    path: str | Path | None = None,
) -> Table: ...
@overload
def load(
    name: Literal["mnist", "mnist5k", "fashion"], path: str | Path | None = None
) -> Images: ...
@overload
def load(name: Literal["sentiment4"], path: str | Path | None = None) -> pd.DataFrame: ...
@overload
def load(name: Literal["wordnet"], path: str | Path | None = None) -> WordNet: ...
@overload
def load(name: Literal["eeg"], path: str | Path | None = None) -> TrialSets: ...
@overload
def load(name: Literal["basic_motions"], path: str | Path | None = None) -> Trials: ...
@overload
def load(name: Literal["minilm"], path: str | Path | None = None) -> Path: ...
@overload
def load(name: Literal["smollm2"], path: str | Path | None = None) -> LanguageModel: ...
@overload
def load(name: str, path: str | Path | None = None) -> Any: ...
@checked
def load(name: str, path: str | Path | None = None) -> Any:
    """Load a data set or model by name, fetching it first where needed.

    Parameters
    ----------
    name
        A name of `available`.
    path
        Your own data of the same kind, read instead and never hashed: the same file format, for
        tables and texts also a CSV, JSON lines, Parquet or Arrow file or a Hugging Face dataset
        directory, for models a Hugging Face model directory.

    Returns
    -------
    `Table` for digits, diabetes, breast_cancer, wine and iris; `Images` for mnist, mnist5k and
    fashion; a data frame for sentiment4; `WordNet` for wordnet; `TrialSets` for eeg; `Trials`
    for basic_motions; the model's folder for minilm; `LanguageModel` for smollm2.

    Raises
    ------
    UnknownDataError, DataError
        As `fetch` does.
    surefoot.errors.FileFormatError
        `path` is not in a format that this loader reads.
    """
    item = find(name)
    module, function = item.reader.split(":")
    read = getattr(importlib.import_module(f"surefoot.data.{module}"), function)
    if path is not None:
        return read(Path(path).expanduser())
    if item.bundled:
        from surefoot.data.tables import from_sklearn

        reads.note(item)
        return from_sklearn(name)
    return read(fetch(name))


def _silent(line: str) -> None:
    pass


def _bundled(item: Item) -> Path:
    where = places.bundled(item)
    if where is None:
        raise DataError(f"{item.name} is part of scikit-learn; run: pip install scikit-learn")
    return where


def _instead(item: Item) -> str:
    if item.debian is None:
        return ""
    return (
        f"run: sudo apt-get install {item.debian.package}, or pass path= with a folder that holds "
        f"{', '.join(item.debian.files)}"
    )
