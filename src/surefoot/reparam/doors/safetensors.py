"""Files of tensors with a few words of metadata."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from surefoot._run.files import replacing
from surefoot.errors import FileFormatError, need

PART = "a file of scales"


def write(path: str | Path, arrays: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Write a .safetensors file."""
    with need("safetensors", extra="federated", part=PART):
        from safetensors.torch import save_file
    flat = {k: v.contiguous().cpu() for k, v in arrays.items()}
    with replacing(path) as partial:
        save_file(flat, str(partial), metadata=metadata)


def read(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and the metadata of a .safetensors file.

    Raises
    ------
    FileFormatError
        It cannot be read.
    """
    with need("safetensors", extra="federated", part=PART):
        from safetensors import SafetensorError, safe_open
    try:
        with safe_open(str(path), framework="pt") as file:
            arrays = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            return arrays, file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise FileFormatError(f"{path} is not a readable file of scales: {error}") from error
