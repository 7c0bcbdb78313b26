"""The one way a file is written: a reader sees the old file or the whole new one, never a part."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from surefoot.errors import FileFormatError


@contextmanager
def replacing(path: str | Path, mode: int | None = None) -> Iterator[Path]:
    """Give a hidden file beside `path` to write into; it takes its place when the block ends.

    What was written is on the disk before the name points to it. If the block raises, `path` is as it
    was and nothing is left beside it; a killed process may leave `.NAME.TOKEN.part`. Writers that run
    at once each write a file of their own, and the last to end stays.

    Parameters
    ----------
    path : str or Path
        The file to write; its folder must exist.
    mode : int, optional
        Its rights, from its first byte on; by default those that the user's umask gives.

    Yields
    ------
    Path
        An empty file in the same folder, for any library that writes to a path.

    Raises
    ------
    OSError
        The folder is missing, read-only or full; the message names `path`.
    """
    path = Path(path)
    # Cut, as a name may be as long as the file system allows.
    partial = path.with_name(f".{path.name[:40]}.{secrets.token_hex(8)}.part")
    try:
        rights = 0o666 if mode is None else mode
        with open(os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY, rights), "wb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
        yield partial
        # safetensors 0.8 puts a file in its place that only its owner may read.
        partial.chmod(mode)
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:
        if error.filename == str(partial):
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
    finally:
        partial.unlink(missing_ok=True)


def write_bytes(path: str | Path, content: bytes) -> None:
    """Write bytes, whole or not at all."""
    with replacing(path) as partial:
        partial.write_bytes(content)


def write_text(path: str | Path, text: str) -> None:
    """Write text as UTF-8, whole or not at all."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: str | Path, data: Any) -> None:
    """Write JSON, whole or not at all; what JSON does not know is written as its `str`."""
    write_text(path, json.dumps(data, indent=1, default=str))


def read_json(path: Path) -> Any:
    """Read JSON; a missing or damaged file is a FileFormatError."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileFormatError(f"{path} is not there; is its folder a run of surefoot?") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise FileFormatError(f"{path} is not readable JSON (truncated?): {error}") from None


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
