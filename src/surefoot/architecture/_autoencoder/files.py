"""Tensors in one .safetensors file whose header holds JSON: written whole, and read only if undamaged.

The format is a length, a JSON header and the bytes (https://github.com/huggingface/safetensors); it is
written here, so that no extra is needed, and any of its readers reads the file.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from surefoot._numerics.digest import tensors_digest
from surefoot._run.files import write_bytes
from surefoot.errors import FileFormatError

DTYPES = {"F32": torch.float32, "F64": torch.float64, "F16": torch.float16, "I64": torch.int64}
NAMES = {dtype: name for name, dtype in DTYPES.items()}
LABEL = "{name} {dtype} {shape}"
MOST_HEADER = 100_000_000


def write_tensors(path: Path, tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> None:
    """Write tensors and JSON, with the digest of both.

    Raises
    ------
    ValueError
        A tensor has a dtype that the file does not know.
    """
    flat = {name: t.detach().cpu().contiguous() for name, t in sorted(tensors.items())}
    other = next((t.dtype for t in flat.values() if t.dtype not in NAMES), None)
    if other is not None:
        raise ValueError(f"tensors must be of {', '.join(map(str, NAMES))}, got {other}")
    said = {"config": json.dumps(config), "sha256": digest(flat, config)}
    header: dict[str, Any] = {"__metadata__": said}
    at = 0
    for name, t in flat.items():
        end = at + t.numel() * t.itemsize
        header[name] = {
            "dtype": NAMES[t.dtype],
            "shape": list(t.shape),
            "data_offsets": [at, end],
        }
        at = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    body = b"".join(t.flatten().view(torch.uint8).numpy().tobytes() for t in flat.values())
    write_bytes(path, struct.pack("<Q", len(text)) + text + body)


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the JSON.

    Raises
    ------
    FileFormatError
        It is no such file, or its bytes are not those that were written.
    """
    content = path.read_bytes()
    try:
        (length,) = struct.unpack("<Q", content[:8])
        if length > min(MOST_HEADER, len(content) - 8):
            raise ValueError("the header is longer than the file")
        header = json.loads(content[8 : 8 + length])
        said, body = header.pop("__metadata__"), bytearray(content[8 + length :])
        tensors = {name: _tensor(body, **entry) for name, entry in header.items()}
        config = json.loads(said["config"])
        if max((e["data_offsets"][1] for e in header.values()), default=0) != len(body):
            raise ValueError("bytes are missing or too many")
        if _digest(tensors, said["config"]) != said["sha256"]:
            raise ValueError("the bytes are not those that were written")
        if not isinstance(config, dict):
            raise ValueError("there is no configuration")
    except (ValueError, KeyError, TypeError, AttributeError, struct.error, RuntimeError) as error:
        raise FileFormatError(f"{path} is not a whole autoencoder of surefoot: {error}") from error
    return tensors, config


def digest(tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> str:
    """What `write_tensors` writes as their digest.

    Parameters
    ----------
    tensors, config
        As it takes them.
    """
    return _digest(tensors, json.dumps(config))


def _digest(tensors: Mapping[str, Tensor], config: str) -> str:
    both = tensors_digest(sorted(tensors.items()), LABEL) + config.encode()
    return hashlib.sha256(both).hexdigest()


def _tensor(body: bytearray, dtype: str, shape: list[int], data_offsets: list[int]) -> Tensor:
    start, end = data_offsets
    kind = DTYPES[dtype]
    if not 0 <= start <= end <= len(body) or end - start != math.prod(shape) * kind.itemsize:
        raise ValueError("a tensor does not fit its bytes")
    if start == end:
        return torch.empty(shape, dtype=kind)
    return (
        torch.frombuffer(body, dtype=torch.uint8, count=end - start, offset=start)
        .clone()
        .view(kind)
        .view(shape)
    )
