"""Tensors in one safetensors file, with words beside them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from surefoot.errors import need


def save_tensors(
    tensors: Mapping[str, Tensor], path: Path, metadata: dict[str, str] | None = None
) -> None:
    """Write tensors by name.

    Parameters
    ----------
    tensors
        Contiguous, none of them sharing memory with another.
    path
        The file, replaced where it exists.
    metadata
        Words for the file's header.
    """
    with need("safetensors", extra="llm", part="surefoot.lora"):
        from safetensors.torch import save_file
    save_file(dict(tensors), path, metadata=metadata)


def open_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Every tensor of a file by name, on the CPU, and the words in its header."""
    with need("safetensors", extra="llm", part="surefoot.lora"):
        from safetensors import safe_open
    with safe_open(path, framework="pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        return tensors, file.metadata() or {}


def save_module(module: nn.Module, path: Path) -> None:
    """Write a module's state, tensors that share memory once."""
    with need("safetensors", extra="llm", part="surefoot.lora"):
        from safetensors.torch import save_model
    save_model(module, str(path))
