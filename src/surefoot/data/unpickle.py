"""Read a pickle that may hold NumPy arrays and nothing else.

A pickle is a program: it can call any function it names. This one may name only the constructors
of an array, so a pickle that asks for anything else is refused before it runs.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Iterator
from typing import Any

import numpy as np

from surefoot.data.errors import DataError
from surefoot.errors import FileFormatError

# asked from an array, as the module that holds it has moved between NumPy versions
_RECONSTRUCT = np.empty(0).__reduce__()[0]

ADMITTED = {
    ("numpy.core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy._core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}


class ArraysOnly(pickle.Unpickler):
    """An unpickler that admits NumPy's array constructors."""

    def find_class(self, module: str, name: str) -> Any:
        """The constructor of that name, or a DataError."""
        if (module, name) not in ADMITTED:
            raise DataError(
                f"the pickle asks for {module}.{name}, which is no constructor of a NumPy array; "
                "it is refused and nothing of it was run"
            )
        return ADMITTED[module, name]


def read_arrays(pickled: bytes) -> list[np.ndarray]:
    """The arrays of a pickle of nested tuples or lists of numeric arrays, in order.

    Raises DataError when the pickle names anything else, FileFormatError when it is damaged.
    """
    try:
        # Python 2 wrote array contents as its strings, which are bytes
        found = ArraysOnly(io.BytesIO(pickled), encoding="bytes").load()
    except DataError:
        raise
    except Exception as error:  # a damaged pickle may fail in any way
        raise FileFormatError(f"the pickle cannot be read: {error}") from error
    return list(_flat(found))


def _flat(found: object) -> Iterator[np.ndarray]:
    if isinstance(found, np.ndarray) and found.dtype.kind in "fiu":
        yield found
    elif isinstance(found, tuple | list):
        for part in found:
            yield from _flat(part)
    else:
        raise FileFormatError(f"the pickle holds a {type(found).__name__} beside numeric arrays")
