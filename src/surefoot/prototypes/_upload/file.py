"""An upload as a file: arrays in NumPy's format, uncompressed and without pickles, and a line of JSON."""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped

from surefoot._numerics.npy import BAD_ZIP, read_npy
from surefoot._sealed.writing import writing
from surefoot.errors import FileFormatError

ABOUT = "about.json"
EPOCH = (1980, 1, 1, 0, 0, 0)
"""No clock in the file: the same upload is the same bytes."""


def write_upload(
    path: str | Path, arrays: Mapping[str, Shaped[np.ndarray, "..."]], about: Mapping[str, Any]
) -> None:
    """Write whole or not at all; `numpy.load` reads the arrays too.

    Parameters
    ----------
    path
        Ends in .npz by custom.
    arrays, about
        As in `contents`.

    Raises
    ------
    surefoot.errors.WriteError
        A full disk, a quota, a folder that may not be written to.
    """
    with writing(path) as file, zipfile.ZipFile(file, "w") as archive:
        archive.writestr(zipfile.ZipInfo(ABOUT, EPOCH), json.dumps(dict(about)))
        for name, value in arrays.items():
            stream = io.BytesIO()
            np.save(stream, value, allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy", EPOCH), stream.getvalue())


def read_upload(
    path: str | Path,
) -> tuple[dict[str, Shaped[np.ndarray, "..."]], dict[str, Any]]:
    """Arrays and words of a file, every byte of which is checked against its sum.

    Raises
    ------
    surefoot.errors.FileFormatError
        It is missing, damaged, cut, compressed, or no upload; the file is named.
    """
    path = Path(path)
    try:
        size = os.stat(path).st_size
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            names = [m.filename for m in members]
            if ABOUT not in names or len(set(names)) < len(names):
                raise FileFormatError(f"{path} is no upload: it has no {ABOUT}, or a name twice")
            # What is stored as it is can be no larger than the file.
            if any(m.compress_type != zipfile.ZIP_STORED or m.file_size > size for m in members):
                raise FileFormatError(f"{path} is no upload: its parts must be stored uncompressed")
            raw = {m.filename: archive.read(m) for m in members}
        said = json.loads(raw.pop(ABOUT).decode())
        if not isinstance(said, dict):
            raise FileFormatError(f"{path} is no upload: {ABOUT} must be an object")
        arrays = {
            n.removesuffix(".npy"): read_npy(n.removesuffix(".npy"), d) for n, d in raw.items()
        }
    except FileFormatError:
        raise
    except FileNotFoundError:
        raise FileFormatError(f"there is no file {path}") from None
    except BAD_ZIP as error:
        raise FileFormatError(f"{path} is damaged or no upload: {error}") from None
    except OSError as error:
        raise FileFormatError(f"{path} cannot be read: {error.strerror or error}") from None
    except ValueError as error:
        raise FileFormatError(f"{path} is damaged or no upload: {error}") from None
    return arrays, said
