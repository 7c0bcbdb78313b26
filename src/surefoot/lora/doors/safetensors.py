"""A module's state in one safetensors file."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from surefoot.errors import need


def save_module(module: nn.Module, path: Path) -> None:
    """Write a module's state, tensors that share memory once."""
    with need("safetensors", extra="llm", part="surefoot.lora"):
        from safetensors.torch import save_model
    save_model(module, str(path))
