"""Tensors and words in one .safetensors file that is written whole and read only if undamaged.

The format is a length, a JSON header and the bytes (https://github.com/huggingface/safetensors); it is
written here, so that no extra is needed and no digest left out, and any of its readers reads the file.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from surefoot._numerics.digest import tensors_digest
from surefoot._sealed.writing import writing
from surefoot.errors import FileFormatError

DTYPES = {
    "F64": torch.float64, "I64": torch.int64, "C64": torch.complex64, "F32": torch.float32,
    "I32": torch.int32, "BF16": torch.bfloat16, "F16": torch.float16, "I16": torch.int16, "I8": torch.int8,
    "U8": torch.uint8, "BOOL": torch.bool, "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2,
}  # fmt: skip
NAMES = {dtype: name for name, dtype in DTYPES.items()}
LABEL = "{name} {dtype} {shape}"
MOST_HEADER = 100_000_000
WHOLE, EACH = "sha256", "tensors_sha256"


@dataclass(frozen=True)
class SealedTensors:
    """What a file held.

    Attributes
    ----------
    tensors
        By name, on the CPU.
    words
        Of its header, without those that `write_tensors` adds.
    sealed
        Whether it carried a digest; False: of another library, or of an older version.
    """

    tensors: dict[str, Tensor]
    words: dict[str, str]
    sealed: bool


def digest(tensors: Mapping[str, Tensor], words: Mapping[str, str]) -> str:
    """SHA-256, in hexadecimal, over names, dtypes, shapes and bits of tensors, and over words.

    Parameters
    ----------
    tensors, words
        As `write_tensors` takes them.
    """
    said = "".join(words[key] for key in sorted(words))
    if EACH in words:
        # Without it the file is an autoencoder's, whose digest is older.
        said = json.dumps(sorted(words.items()))
    found = tensors_digest(sorted(tensors.items()), LABEL) + said.encode()
    return hashlib.sha256(found).hexdigest()


def write_tensors(
    path: str | Path,
    tensors: Mapping[str, Tensor],
    words: Mapping[str, str],
    *,
    each: bool = True,
) -> None:
    """Write tensors and words with their digest, whole or not at all.

    Parameters
    ----------
    path
        The file.
    tensors
        By name, of any dtype of `DTYPES`, on any device.
    words
        For the header.
    each
        Write a digest of each tensor besides, so that damage is told of by the tensor's name, and a damaged
        mark of the digest is not taken for a file without one.

    Raises
    ------
    ValueError
        A tensor has a dtype that the file does not know.
    surefoot.errors.WriteError
        A full disk, a quota, a folder that may not be written to.
    """
    # Sorted: the same tensors are the same file.
    flat = {name: t.detach().cpu().contiguous() for name, t in sorted(tensors.items())}
    other = next((t.dtype for t in flat.values() if t.dtype not in NAMES), None)
    if other is not None:
        raise ValueError(f"tensors must be of {', '.join(map(str, NAMES))}, got {other}")
    said = dict(words)
    if each:
        sums = {name: tensors_digest([(name, t)], LABEL).hex() for name, t in flat.items()}
        said[EACH] = json.dumps(sums)
    header: dict[str, Any] = {"__metadata__": said | {WHOLE: digest(flat, said)}}
    # Wide numbers first, so that each begins where its width allows.
    order = sorted(flat, key=lambda name: (-flat[name].itemsize, name))
    at = 0
    for name in order:
        t = flat[name]
        end = at + t.numel() * t.itemsize
        header[name] = {"dtype": NAMES[t.dtype], "shape": list(t.shape), "data_offsets": [at, end]}
        at = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with writing(path) as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name in order:
            raw: Any = flat[name].reshape(-1).view(torch.uint8).numpy()
            file.write(memoryview(raw))


def read_tensors(path: str | Path) -> SealedTensors:
    """The tensors and words of a .safetensors file, checked where it carries a digest.

    Raises
    ------
    FileFormatError
        It is no such file, or its bytes are not those that were written; the message names it.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            header, start = _header(file, path.stat().st_size)
            said = {str(k): str(v) for k, v in header.pop("__metadata__", {}).items()}
            tensors = _tensors(file, header, path.stat().st_size - start)
        expected = said.pop(WHOLE, None)
        if expected is not None:
            _check(tensors, said, expected)
        elif EACH in said:
            raise ValueError("its digest is missing")
    except OSError as error:
        raise FileFormatError(f"{path} cannot be read: {error.strerror or error}") from error
    except (
        ValueError, KeyError, TypeError, AttributeError, struct.error, RuntimeError, RecursionError,
        OverflowError,
    ) as error:  # fmt: skip
        raise FileFormatError(f"{path} is not a whole file of tensors: {error}") from error
    said.pop(EACH, None)
    return SealedTensors(tensors, said, expected is not None)


def _check(tensors: Mapping[str, Tensor], said: Mapping[str, str], expected: str) -> None:
    if digest(tensors, said) == expected:
        return
    sums: dict[str, str] = json.loads(said.get(EACH, "{}"))
    for name, wanted in sums.items():
        if name not in tensors or tensors_digest([(name, tensors[name])], LABEL).hex() != wanted:
            raise ValueError(f"{name} is not what was written")
    raise ValueError("the bytes are not those that were written")


def _header(file: IO[bytes], size: int) -> tuple[dict[str, Any], int]:
    (length,) = struct.unpack("<Q", file.read(8))
    if length > min(MOST_HEADER, size - 8):
        raise ValueError("the header is longer than the file")
    header = json.loads(file.read(length))
    if not isinstance(header, dict):
        raise ValueError("the header is no object")
    return header, 8 + length


def _tensors(file: IO[bytes], header: Mapping[str, Any], size: int) -> dict[str, Tensor]:
    found, at = {}, 0
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        kind, shape = DTYPES[entry["dtype"]], [int(n) for n in entry["shape"]]
        start, end = entry["data_offsets"]
        if start != at or not start <= end <= size or min(shape, default=0) < 0:
            raise ValueError(f"{name} does not follow what is before it")
        if end - start != math.prod(shape) * kind.itemsize:
            raise ValueError(f"{name} does not fit its bytes")
        found[name] = _tensor(file, end - start, kind, shape)
        at = end
    if at != size:
        raise ValueError("bytes are missing or too many")
    return found


def _tensor(file: IO[bytes], count: int, kind: torch.dtype, shape: list[int]) -> Tensor:
    if not count:
        return torch.empty(shape, dtype=kind)
    raw = bytearray(count)
    if file.readinto(raw) != count:  # type: ignore[attr-defined]
        raise ValueError("bytes are missing")
    return torch.frombuffer(raw, dtype=torch.uint8).view(kind).view(shape)
