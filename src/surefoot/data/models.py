"""Pretrained models as folders on disk, for `transformers` to load."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from surefoot.errors import FileFormatError


@dataclass(frozen=True)
class LanguageModel:
    """What `from_pretrained` needs to load a causal language model and its tokenizer.

    ```python
    found = data.load("smollm2")
    model = AutoModelForCausalLM.from_pretrained(found.folder, gguf_file=found.gguf_file)
    tokenizer = AutoTokenizer.from_pretrained(found.folder, gguf_file=found.gguf_file)
    ```
    """

    folder: Path
    gguf_file: str | None
    """The file inside the folder, or None for a folder of ordinary weights."""


def encoder(path: Path) -> Path:
    """A folder from which `AutoModel.from_pretrained` loads an encoder."""
    if not (path / "config.json").is_file():
        raise FileFormatError(f"{path} is not a model folder: it holds no config.json")
    return path


def language_model(path: Path) -> LanguageModel:
    """A `.gguf` file, a folder with one, or a folder of ordinary weights with a `config.json`."""
    if path.is_file():
        return LanguageModel(path.parent, _gguf(path))
    if (path / "config.json").is_file():
        return LanguageModel(path, None)
    found = sorted(path.glob("*.gguf"))
    if len(found) != 1:
        raise FileFormatError(
            f"{path} is not a model folder: a config.json or exactly one .gguf file is needed, "
            f"it holds {len(found)}"
        )
    return LanguageModel(path, _gguf(found[0]))


def _gguf(path: Path) -> str:
    with path.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise FileFormatError(f"{path} is not a GGUF file")
    return path.name
