"""Tensors in one .safetensors file whose header holds JSON: written whole, and read only if undamaged."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from surefoot._sealed import tensors as sealed
from surefoot.errors import FileFormatError

CONFIG = "config"
DTYPES = (torch.float32, torch.float64, torch.float16, torch.int64)


def write_tensors(path: Path, tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> None:
    """Write tensors and JSON, with the digest of both.

    Raises
    ------
    ValueError
        A tensor has a dtype that the file does not know.
    surefoot.errors.WriteError
        A full disk, a quota, a folder that may not be written to.
    """
    other = next((t.dtype for t in tensors.values() if t.dtype not in DTYPES), None)
    if other is not None:
        raise ValueError(f"tensors must be of {', '.join(map(str, DTYPES))}, got {other}")
    sealed.write_tensors(path, tensors, {CONFIG: json.dumps(config)}, each=False)


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the JSON.

    Raises
    ------
    FileFormatError
        It is no such file, or its bytes are not those that were written.
    """
    found = sealed.read_tensors(path)
    try:
        config = json.loads(found.words[CONFIG])
        if not found.sealed or not isinstance(config, dict):
            raise ValueError("there is no digest, or no configuration")
    except (ValueError, KeyError) as error:
        raise FileFormatError(f"{path} is not a whole autoencoder of surefoot: {error}") from error
    return found.tensors, config


def digest(tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> str:
    """What `write_tensors` writes as their digest.

    Parameters
    ----------
    tensors, config
        As it takes them.
    """
    return sealed.digest(tensors, {CONFIG: json.dumps(config)})
