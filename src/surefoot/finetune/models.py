"""Which model is meant, and of which kind it is: told from its files, before any weight is read."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from surefoot.errors import FileFormatError
from surefoot.finetune.errors import FinetuneError

PACKAGED = ("minilm", "smollm2")
TOKENIZER = ("tokenizer.json", "vocab.*", "*.model")
GENERATES = ("ForCausalLM", "LMHeadModel")


@dataclass(frozen=True)
class Source:
    """A pretrained model on disk.

    Attributes
    ----------
    name
        As the user wrote it.
    folder, gguf
        Where it is; of a GGUF file its name in the folder.
    kind
        An encoder gets a new head for the classes; a language model is asked with a prompt.
    """

    name: str
    folder: Path
    gguf: str | None
    kind: Literal["encoder", "language model"]


def find_model(name: str) -> Source:
    """A folder, a GGUF file or a packaged model.

    Raises
    ------
    FinetuneError
        There is no such model, or it is of a kind that is not trained here.
    """
    path = Path(name)
    if name in PACKAGED and not path.exists():
        from surefoot import data

        found = data.load(name)
        return _at(name, found if isinstance(found, Path) else found.folder)
    if not path.exists():
        raise FinetuneError(
            f"{name} is no model: neither a folder, nor a .gguf file, nor one of {', '.join(PACKAGED)}"
        )
    return _at(name, path)


def _at(name: str, path: Path) -> Source:
    if path.is_file() or not (path / "config.json").is_file():
        return _gguf(name, path)
    config = _config(path)
    if config.get("is_encoder_decoder"):
        raise FinetuneError(f"{name} has an encoder and a decoder, which is not trained here")
    classes = config.get("architectures") or ()
    if not classes:
        raise FinetuneError(
            f"{name} is no model that can be told: config.json names no architecture"
        )
    if not any(list(path.glob(pattern)) for pattern in TOKENIZER):
        raise FinetuneError(
            f"{name} has no tokenizer: none of {', '.join(TOKENIZER)} is there; save it beside the model"
        )
    generates = any(str(word).endswith(GENERATES) for word in classes)
    return Source(name, path, None, "language model" if generates else "encoder")


def _gguf(name: str, path: Path) -> Source:
    from surefoot.data.models import language_model

    if path.is_dir() and (path / "adapter_config.json").is_file():
        raise FinetuneError(f"{name} is an adapter; merge it into its base model first")
    try:
        found = language_model(path)
    except FileFormatError as error:
        raise FinetuneError(f"{name} is no model: {error}") from error
    return Source(name, found.folder, found.gguf_file, "language model")


def _config(path: Path) -> dict[str, Any]:
    try:
        found = json.loads((path / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise FinetuneError(f"{path / 'config.json'} cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise FinetuneError(f"{path / 'config.json'} is no configuration of a model")
    return found
