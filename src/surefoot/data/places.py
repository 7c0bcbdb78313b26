"""Where the files of an entry may already be: installed packages first, then our cache."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from surefoot.data import store
from surefoot.data.catalogue import Archive, File, Item
from surefoot.data.errors import DataError


@dataclass(frozen=True)
class Place:
    """A folder that may hold the files."""

    root: Path
    files: Mapping[str, File]
    ours: bool = False
    """Whether it is in our cache."""


def places(item: Item) -> Iterator[Place]:
    """Every folder to look into, best first; none of them need exist."""
    if item.archive:
        for root in _installed(item.archive):
            yield Place(root, item.files)
        yield Place(store.cache_dir() / item.name, item.files, ours=True)
    if item.debian:
        yield Place(Path(item.debian.folder), item.debian.files)


def _installed(archive: Archive) -> Iterator[Path]:
    if archive.index == "pypi":
        try:
            yield Path(str(metadata.distribution(archive.package).locate_file(archive.folder)))
        except metadata.PackageNotFoundError:
            return
    else:
        inside = Path(*Path(archive.folder).parts[1:])
        searched = os.environ.get("NODE_PATH", "").split(os.pathsep)
        for modules in [*filter(None, searched), "/usr/local/lib/node_modules",
                        "/usr/lib/node_modules"]:  # fmt: skip
            yield Path(modules) / archive.package / inside


def locate(item: Item, say: store.Say) -> Path | None:
    """The first folder whose files all have their pinned hash."""
    for place in places(item):
        if not store.has_sizes(place.root, place.files):
            if place.ours and place.root.exists():
                say(f"the copy of {item.name} in {place.root} is incomplete: replacing it")
            continue
        wrong = store.damage(place.root, place.files)
        if wrong is None:
            return place.root
        if place.ours:
            say(f"{wrong}: replacing it")
    return None


def glance(item: Item) -> tuple[Path, int] | None:
    """The first folder with files of the right sizes, and their sum in bytes; hashes nothing."""
    if item.bundled:
        inside = bundled(item)
        if inside is None:
            return None
        return inside, sum((inside / name).stat().st_size for name in item.bundled)
    for place in places(item):
        if store.has_sizes(place.root, place.files):
            return place.root, sum(file.size for file in place.files.values())
    return None


def bundled(item: Item) -> Path | None:
    """The folder inside scikit-learn, found without importing it."""
    found = importlib.util.find_spec("sklearn")
    if found is None or found.origin is None:
        return None
    root = Path(found.origin).parent / "datasets" / "data"
    return root if all((root / name).is_file() for name in item.bundled) else None


def verified(item: Item) -> Path:
    """The folder that would be used, with every byte hashed anew; a DataError if it is not right."""
    for place in places(item):
        wrong = store.damage(place.root, place.files)
        if wrong is None:
            return place.root
        if place.ours and place.root.exists():
            raise DataError(f"{wrong}; run: surefoot data fetch {item.name}")
    raise DataError(f"{item.name} is not on this machine; run: surefoot data fetch {item.name}")
