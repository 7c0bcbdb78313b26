"""The header of a GGUF file: what the model is, and where each tensor lies.

The format is that of ggml (docs/gguf.md), versions 2 and 3, little-endian. Texts of the tokenizer, most of a
header, are passed over.
"""

from __future__ import annotations

import math
import mmap
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from surefoot.errors import FileFormatError

MAGIC = b"GGUF"
VERSIONS = (2, 3)
FORMATS = {
    0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d",
}  # fmt: skip
TEXT, ARRAY = 8, 9
ALIGNMENT = 32
MOST_DIMENSIONS = 8


@dataclass(frozen=True)
class Place:
    """One tensor in the file.

    Attributes
    ----------
    name
        As llama.cpp calls it.
    shape
        In the order of torch: outputs first.
    kind
        ggml's number of its type.
    offset
        Where its bytes start, from the start of the file.
    """

    name: str
    shape: tuple[int, ...]
    kind: int
    offset: int


@dataclass(frozen=True)
class Header:
    """What stands before the tensors.

    Attributes
    ----------
    path
        The file.
    values
        Its metadata; of an array of texts only the length.
    raw
        The bytes of each value, with its key and type; those of texts in arrays are left out.
    tensors
        The tensors by name.
    size
        Bytes in the file.
    """

    path: Path
    values: Mapping[str, object]
    raw: Mapping[str, bytes]
    tensors: Mapping[str, Place]
    size: int


class _Cursor:
    """Reads on from a place in the file."""

    def __init__(self, content: mmap.mmap, path: Path) -> None:
        self.content, self.path, self.at = content, path, 0

    def take(self, size: int) -> bytes:
        self.skip(size)
        return self.content[self.at - size : self.at]

    def skip(self, size: int) -> None:
        if size > len(self.content) - self.at:
            raise FileFormatError(
                f"{self.path} is truncated or its header is damaged: {size} bytes are announced at byte "
                f"{self.at} of {len(self.content)}"
            )
        self.at += size

    def number(self, form: str) -> int:
        (found,) = struct.unpack(form, self.take(struct.calcsize(form)))
        return int(found)

    def text(self) -> str:
        at = self.at
        try:
            return self.take(self.number("<Q")).decode()
        except UnicodeDecodeError as error:
            raise FileFormatError(
                f"{self.path} has a damaged header: no text at byte {at}"
            ) from error

    def value(self) -> tuple[object, bool]:
        """A value, and whether it is whole: of an array of texts only the length is kept."""
        kind = self.number("<I")
        if kind == TEXT:
            return self.text(), True
        if kind != ARRAY:
            (found,) = struct.unpack(self._form(kind), self.take(struct.calcsize(self._form(kind))))
            return found, True
        kind, count = self.number("<I"), self.number("<Q")
        if kind == TEXT:
            for _ in range(count):
                self.skip(self.number("<Q"))
            return count, False
        form = self._form(kind)
        # Taken before it is read: a damaged count asks for no memory.
        taken = self.take(count * struct.calcsize(form))
        return [each for (each,) in struct.iter_unpack(form, taken)], True

    def _form(self, kind: int) -> str:
        if kind not in FORMATS:
            raise FileFormatError(
                f"{self.path} has a damaged header: no value is of type {kind} (before byte {self.at})"
            )
        return FORMATS[kind]


def read_header(path: Path) -> Header:
    """The header of a file.

    Raises
    ------
    FileFormatError
        If it is no GGUF file, of another version, truncated or damaged.
    """
    if not path.is_file():
        raise FileFormatError(f"{path} is no file; give a GGUF file")
    with path.open("rb") as file:
        if file.read(len(MAGIC)) != MAGIC:
            raise FileFormatError(f"{path} is not a GGUF file")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return _read(_Cursor(content, path))


def _read(cursor: _Cursor) -> Header:
    path = cursor.path
    cursor.skip(len(MAGIC))
    version = cursor.number("<I")
    if version not in VERSIONS:
        raise FileFormatError(
            f"{path} is of GGUF version {version}; versions {' and '.join(map(str, VERSIONS))} are read"
        )
    many, pairs = cursor.number("<Q"), cursor.number("<Q")
    values: dict[str, object] = {}
    raw: dict[str, bytes] = {}
    for _ in range(pairs):
        at = cursor.at
        key = cursor.text()
        values[key], whole = cursor.value()
        if whole:
            raw[key] = cursor.content[at : cursor.at]
    listed = list(_tensors(cursor, many))
    alignment = values.get("general.alignment", ALIGNMENT)
    if not isinstance(alignment, int) or alignment < 1:
        raise FileFormatError(f"{path} has a damaged header: an alignment of {alignment!r}")
    start = math.ceil(cursor.at / alignment) * alignment
    tensors = {
        name: Place(name, shape, kind, start + offset) for name, shape, kind, offset in listed
    }
    if len(tensors) != len(listed):
        raise FileFormatError(f"{path} has a damaged header: two tensors of one name")
    return Header(path, values, raw, tensors, len(cursor.content))


def _tensors(cursor: _Cursor, many: int) -> Iterator[tuple[str, tuple[int, ...], int, int]]:
    for _ in range(many):
        name, dimensions = cursor.text(), cursor.number("<I")
        if not 1 <= dimensions <= MOST_DIMENSIONS:
            raise FileFormatError(
                f"{cursor.path} has a damaged header: {name!r} has {dimensions} dimensions"
            )
        # ggml names the dimension that moves fastest first.
        shape = tuple(cursor.number("<Q") for _ in range(dimensions))[::-1]
        kind, offset = cursor.number("<I"), cursor.number("<Q")
        yield name, shape, kind, offset


def stub(header: Header, vocabulary: int | None) -> bytes:
    """A small GGUF file with the same metadata and names and no weights, for who reads only those.

    Parameters
    ----------
    header
        Of the whole file.
    vocabulary
        How many tokens there are, where the metadata do not say.
    """

    def text(given: str) -> bytes:
        found = given.encode()
        return struct.pack("<Q", len(found)) + found

    pairs = list(header.raw.values())
    key = f"{header.values.get('general.architecture')}.vocab_size"
    if vocabulary is not None and key not in header.raw:
        pairs.append(text(key) + struct.pack("<II", 4, vocabulary))
    table = b"".join(text(name) + struct.pack("<IQIQ", 1, 1, 0, 0) for name in header.tensors)
    head = MAGIC + struct.pack("<IQQ", VERSIONS[-1], len(header.tensors), len(pairs))
    whole = head + b"".join(pairs) + table
    alignment = int(str(header.values.get("general.alignment", ALIGNMENT)))
    return whole + bytes(-len(whole) % alignment + alignment)
