"""An array from the bytes of NumPy's format, when whoever wrote them is not trusted."""

from __future__ import annotations

import io
import math
import zipfile
import zlib
from tokenize import TokenError

import numpy as np
from jaxtyping import Shaped

KINDS = "biuf"
# NumPy reads a header as Python's literal: what is nested deeply ends in more than a ValueError.
NO_HEADER = (
    ValueError,
    KeyError,
    TypeError,
    SyntaxError,
    OverflowError,
    RecursionError,
    MemoryError,
    TokenError,
)

# What zipfile makes of an archive that is damaged: it then takes members for compressed or encrypted.
BAD_ZIP = (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError)


def read_npy(name: str, data: bytes) -> Shaped[np.ndarray, "..."]:
    """The array in the bytes: plain numbers, of exactly the size that its header says.

    NumPy makes room for what a header claims before it looks whether the numbers are there: a few bytes can
    ask for all memory. No object is unpickled.

    Parameters
    ----------
    name
        Of the array, for errors.
    data
        Version 1.0 or 2.0 of the format, to the last byte.

    Raises
    ------
    ValueError
        They are no such array; the name is in the message.
    """
    stream = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(stream)
        # Version 3.0 is for names of fields, which plain numbers have not.
        reader = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }[version]
        shape, fortran, dtype = reader(stream)
    except NO_HEADER as error:
        raise ValueError(f"{name} is no array in NumPy's format: {error}") from None
    if dtype.kind not in KINDS or dtype.hasobject:
        raise ValueError(f"{name} must hold plain real numbers, got {dtype}")
    if any(n < 0 for n in shape):
        raise ValueError(f"{name} claims a shape below 0, {shape}: it is damaged or forged")
    left = len(data) - stream.tell()
    if left != math.prod(shape) * dtype.itemsize:
        raise ValueError(
            f"{name} claims {dtype} of shape {shape}, {math.prod(shape) * dtype.itemsize} bytes, and has "
            f"{left}: it is damaged or forged"
        )
    flat = np.frombuffer(data, dtype, offset=stream.tell())
    found = flat.reshape(shape, order="F" if fortran else "C")
    # A copy: the memory of bytes is read-only; and in this machine's byte order.
    return found.astype(dtype.newbyteorder("="), order="C", copy=True)
