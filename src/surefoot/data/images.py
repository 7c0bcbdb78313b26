"""Sets of small grey images: MNIST and its relatives."""

from __future__ import annotations

import gzip
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float32, Int64

from surefoot._numerics.arguments import checked
from surefoot.data.unpickle import read_arrays
from surefoot.errors import FileFormatError

DIGITS = tuple("0123456789")
CLOTHES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker",
           "Bag", "Ankle boot")  # fmt: skip


@checked(nan=True)
@dataclass(frozen=True)
class Images:
    """Grey images with class numbers, in the split of the source.

    A part that the source does not have is empty: `mnist5k` is all training, Fashion-MNIST has no
    validation part. Brightness is `pixel / 255`: 0 is black, 1 is white.
    """

    x_train: Float32[np.ndarray, "n h w"]
    """Brightness, n images of h rows and w columns."""
    y_train: Int64[np.ndarray, "n"]
    """Class numbers, which index `classes`."""
    x_val: Float32[np.ndarray, "v h w"]
    """As `x_train`, for validation."""
    y_val: Int64[np.ndarray, "v"]
    """Their class numbers."""
    x_test: Float32[np.ndarray, "t h w"]
    """As `x_train`, for the test."""
    y_test: Int64[np.ndarray, "t"]
    """Their class numbers."""
    classes: tuple[str, ...]
    """The name of each class."""


# Parts of one set differ in length, so the axis of examples has no name here.
Part = tuple[Float32[np.ndarray, "_ h w"], Int64[np.ndarray, " _"]]


def digits(path: Path) -> Images:
    """MNIST or a set of the same format, with the ten digits as classes."""
    return _images(path, DIGITS)


def clothes(path: Path) -> Images:
    """Fashion-MNIST or a set of the same format, with the ten kinds of clothing as classes."""
    return _images(path, CLOTHES)


def _images(path: Path, classes: tuple[str, ...]) -> Images:
    try:
        train, val, test = _parts(path)
    except (ValueError, IndexError, struct.error, EOFError, OSError, zlib.error) as error:
        if isinstance(error, FileFormatError):
            raise
        raise FileFormatError(f"{path} is not a readable set of images: {error}") from error
    return Images(*train, *val, *test, classes=classes)


def _parts(path: Path) -> tuple[Part, Part, Part]:
    files = [path] if path.is_file() else sorted(path.glob("*")) if path.is_dir() else []
    for file in files:
        if file.name.endswith(".pkl.gz"):
            return _pickled(file)
        if file.name.endswith((".csv", ".csv.gz")):
            train = _csv(file)
            return train, _empty(train), _empty(train)
    stems = {file.name.removesuffix(".gz"): file for file in files}
    wanted = [f"{part}-{kind}" for part in ("train", "t10k")
              for kind in ("images-idx3-ubyte", "labels-idx1-ubyte")]  # fmt: skip
    if all(name in stems for name in wanted):
        x, y, x_test, y_test = (_idx(stems[name]) for name in wanted)
        train, test = _part(x, y), _part(x_test, y_test)
        return train, _empty(train), test
    raise FileFormatError(
        f"{path} is not a set of images: a .pkl.gz of three (images, labels) pairs, a .csv or "
        f".csv.gz with the label last, or a folder with {', '.join(wanted)} is needed"
    )


def _pickled(file: Path) -> tuple[Part, Part, Part]:
    arrays = read_arrays(gzip.decompress(file.read_bytes()))
    if len(arrays) != 6:
        raise FileFormatError(f"{file} holds {len(arrays)} arrays; three pairs are needed")
    pairs = [(_unit(x), y) for x, y in zip(arrays[::2], arrays[1::2], strict=True)]
    train, val, test = (_part(x, y) for x, y in pairs)
    return train, val, test


def _unit(x: np.ndarray) -> np.ndarray:
    """Pixels 0..255 from whatever scale the pickle has."""
    x = np.asarray(x, dtype=np.float32)
    if x.size and x.max() > 1:
        return x
    # the classic pickle holds pixel / 256, whose white is 0.996; multiplying by a power of two is
    # exact, so the pixel comes back and white becomes 1 as in every other set
    pixels = x * np.float32(256)
    return pixels if np.array_equal(pixels, np.rint(pixels)) else x * np.float32(255)


def _csv(file: Path) -> Part:
    rows = pd.read_csv(file, header=None).to_numpy()
    return _part(rows[:, :-1], rows[:, -1])


def _idx(file: Path) -> np.ndarray:
    raw = file.read_bytes()
    raw = gzip.decompress(raw) if file.suffix == ".gz" else raw
    zeros, kind, dimensions = struct.unpack_from(">HBB", raw)
    shape = struct.unpack_from(f">{dimensions}I", raw, 4)
    # 8 is the code of unsigned bytes, the only kind that these sets use
    if zeros != 0 or kind != 8:
        raise FileFormatError(f"{file} is not an idx file of bytes")
    return np.frombuffer(raw, dtype=np.uint8, offset=4 + 4 * dimensions).reshape(shape)


def _part(pixels: np.ndarray, labels: np.ndarray) -> Part:
    """Pixels 0..255, flat or square, and labels 0..9, checked and brought to the common form."""
    if pixels.ndim == 2:
        side = round(pixels.shape[1] ** 0.5)
        pixels = pixels.reshape(-1, side, side)
    if pixels.ndim != 3 or labels.shape != (len(pixels),):
        raise FileFormatError(
            f"images of shape {pixels.shape} with labels of shape {labels.shape} are no set"
        )
    if len(pixels) and not (pixels.min() >= 0 and pixels.max() <= 255):
        raise FileFormatError(f"pixels must be 0 to 255, got {pixels.min()} to {pixels.max()}")
    y = labels.astype(np.int64)
    if len(y) and not (y.min() >= 0 and y.max() <= 9):
        raise FileFormatError(f"labels must be 0 to 9, got {y.min()} to {y.max()}")
    return np.divide(pixels, 255, dtype=np.float32), y


def _empty(like: Part) -> Part:
    return like[0][:0].copy(), like[1][:0].copy()
