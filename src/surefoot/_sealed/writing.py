"""Writing that fails in one sentence: a full disk, a quota, a folder that may not be written to."""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from surefoot._run.files import replacing
from surefoot.errors import WriteError

# A limit on file sizes and a quota are, to the user, a full disk.
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}


def write_error(path: str | Path, error: OSError) -> WriteError:
    """The sentence for a file that could not be written.

    Parameters
    ----------
    path : str or Path
        The file, or the folder.
    error : OSError
        What the system said.
    """
    what = "another place"
    if error.errno in FULL:
        what = "a disk with room, or free some"
    elif error.errno in FORBIDDEN:
        what = "a folder that you may write to"
    found = WriteError(
        f"{path} could not be written ({error.strerror or error}); what was there is as it was: choose {what}"
    )
    found.errno, found.filename = error.errno, str(path)
    return found


def of_system(error: BaseException) -> OSError | None:
    """What the file system said, also where a library has put it into an error of its own; None: nothing."""
    if isinstance(error, OSError):
        return error
    words = str(error)
    number = re.search(r"\(os error (\d+)\)", words)
    if number is not None:  # safetensors
        return OSError(int(number[1]), os.strerror(int(number[1])))
    if "PytorchStreamWriter failed" in words or "inline_container.cc" in words:
        # torch.save to a path tells no reason.
        return OSError(None, "torch could not write all of it")
    return None


@contextmanager
def explained(path: str | Path, inside: Path | None = None) -> Iterator[None]:
    """Turn what the file system says within into one sentence that names `path`.

    Parameters
    ----------
    path : str or Path
        The file or folder that is written.
    inside : Path, optional
        Where it is written before it gets its name.

    Raises
    ------
    WriteError
        In place of what the system said of `path`, or of what is in it or above it.
    """
    path = Path(path)
    try:
        yield
    except WriteError:
        raise
    except Exception as error:
        said = of_system(error)
        if said is None or not any(_is_of(said.filename, p) for p in (path, inside) if p):
            raise
        raise write_error(path, said) from error


def _is_of(name: Any, path: Path) -> bool:
    if not isinstance(name, (str, os.PathLike)):
        return True
    named = Path(name)
    return named.parent == path.parent or path in named.parents or named in (path, *path.parents)


@contextmanager
def writing(path: str | Path) -> Iterator[IO[bytes]]:
    """Open a file for writing: it is there whole when the block ends, or as it was before.

    Folders above it are made.

    Parameters
    ----------
    path : str or Path
        The file.

    Yields
    ------
    binary file
        For libraries that write to one, torch.save among them.

    Raises
    ------
    WriteError
        A full disk, a quota, a folder that may not be written to.
    """
    path = Path(path)
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as partial, partial.open("wb") as file:
            told: Any = _Told(file)
            try:
                yield told
                file.flush()
            except Exception:
                # Whoever writes may hide the reason in an error of its own.
                if told.error is not None:
                    raise told.error from None
                raise


def write_bytes(path: str | Path, content: bytes) -> None:
    """Write bytes, whole or not at all.

    Parameters
    ----------
    path : str or Path
        The file; folders above it are made.
    content : bytes
        All of it.

    Raises
    ------
    WriteError
        A full disk, a quota, a folder that may not be written to.
    """
    with writing(path) as file:
        file.write(content)


@contextmanager
def new_folder(path: str | Path) -> Iterator[Path]:
    """Give a hidden folder to write into; it gets its name when the block ends, or nothing is left of it.

    Parameters
    ----------
    path : str or Path
        The folder, which is not there yet; folders above it are made.

    Yields
    ------
    Path
        An empty folder beside it.

    Raises
    ------
    WriteError
        A full disk, a quota, a folder that may not be written to.
    """
    path = Path(path)
    partial = path.with_name(f".{path.name[:40]}.{secrets.token_hex(8)}.part")
    with explained(path, partial):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            partial.mkdir()
            yield partial
            partial.rename(path)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


class _Told:
    """A file that remembers what the system said."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.error: OSError | None = None

    def write(self, content: Any) -> int:
        try:
            return self._file.write(content)
        except OSError as error:
            self.error = error
            raise

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)
