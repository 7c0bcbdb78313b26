"""What this process has opened of the catalogue, so that a run can say on which bytes it stands."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

from surefoot.data import places
from surefoot.data.catalogue import File, Item

_READ: dict[str, str] = {}


def digest_of(item: Item, where: Path | None) -> str:
    """SHA-256 of the hashes of an item's files, or the version of the package that brings it.

    Parameters
    ----------
    item : Item
        An entry of the catalogue.
    where : Path, optional
        The folder that was found, whose files have their pinned hashes.
    """
    if item.bundled:
        return f"scikit-learn {metadata.version('scikit-learn')}"
    files: Mapping[str, File] = next(
        (p.files for p in places.places(item) if p.root == where), item.files
    )
    lines = (f"{file.sha256}  {path}\n" for path, file in sorted(files.items()))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def note(item: Item, where: Path | None = None) -> None:
    """Remember that an item was opened."""
    _READ[item.name] = digest_of(item, where)


def read_so_far() -> dict[str, str]:
    """Name -> digest of all that this process has opened."""
    return dict(_READ)
