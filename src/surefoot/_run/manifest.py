"""What a run consisted of when it ended: the SHA-256 of every file, and of the data that was read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from surefoot._run.files import read_json, sha256_of, write_json
from surefoot._run.in_use import LOCK, WORKER
from surefoot.errors import FileFormatError

NAME = "manifest.json"
# Written anew by every report, from the files that are listed.
DERIVED = {"index.html", NAME, LOCK}


def _files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        passing = path.suffix == ".part" or path.name == WORKER
        if path.is_file() and str(inside) not in DERIVED and not passing:
            yield inside


def write_manifest(folder: Path, read: Mapping[str, str]) -> None:
    """Write down what is in a run folder.

    Parameters
    ----------
    folder : Path
        A run folder.
    read : mapping
        What the run read, and its SHA-256.
    """
    listed = {path.as_posix(): sha256_of(folder / path) for path in _files(folder)}
    write_json(folder / NAME, sealed({"format": 1, "files": listed, "read": dict(read)}))


def sealed(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """A manifest with the digest of itself, so that a damaged one accuses no other file."""
    rest = {key: value for key, value in manifest.items() if key != "sha256"}
    text = json.dumps(rest, sort_keys=True)
    return {**rest, "sha256": hashlib.sha256(text.encode()).hexdigest()}


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """What manifest.json holds, None where there is none.

    Raises
    ------
    FileFormatError
        It is damaged.
    """
    file = folder / NAME
    if not file.exists():
        return None
    found = read_json(file)
    tables = (found.get("files"), found.get("read")) if isinstance(found, dict) else (None,)
    if not all(isinstance(t, dict) and all(isinstance(v, str) for v in t.values()) for t in tables):
        raise FileFormatError(f"{file} is no list of files")
    if found != sealed(found):
        raise FileFormatError(f"{file} is not as the run left it: its own digest is another")
    return dict(found)


def changes(folder: Path) -> list[str] | None:
    """What differs from a run's manifest, a line a file: changed, gone, or added; None: it has none.

    Parameters
    ----------
    folder : Path
        A run folder.
    """
    manifest = read_manifest(folder)
    if manifest is None:
        return None
    listed = dict(manifest["files"])
    there = {path.as_posix() for path in _files(folder)}
    found = [f"{name} is gone" for name in listed if name not in there]
    for name in sorted(there):
        if name not in listed:
            found.append(f"{name} was added")
        elif sha256_of(folder / name) != listed[name]:
            found.append(f"{name} was changed")
    return found
