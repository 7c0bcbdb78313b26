"""Pretrained models as folders on disk, for `transformers` to load."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from surefoot._numerics.arguments import checked
from surefoot._numerics.checks import check_choice
from surefoot.errors import FileFormatError

if TYPE_CHECKING:
    import torch


@checked(nan=True)
@dataclass(frozen=True)
class LanguageModel:
    """What `from_pretrained` needs to load a causal language model and its tokenizer.

    ```python
    model, tokenizer = data.load("smollm2").open()
    ```

    Other classes of transformers load it by `from_pretrained(folder, gguf_file=gguf_file)`.
    """

    folder: Path
    gguf_file: str | None
    """The file inside the folder, or None for a folder of ordinary weights."""

    def open(self, dtype: torch.dtype | None = None, *, quantised: bool = False) -> tuple[Any, Any]:
        """The model, in evaluation mode, and its tokenizer.

        Parameters
        ----------
        dtype
            Of the weights, float32 by default. Those of a GGUF file are unpacked, and may be trained.
        quantised
            Keep the weights of a GGUF file in its blocks, as
            `surefoot.zeroth_order.quantised.load_gguf` does: a quarter of the memory, the same numbers.

        Raises
        ------
        MissingExtraError
            Without transformers, which comes with the extra `llm`.
        ValueError
            If `quantised` is asked of a folder of ordinary weights.
        """
        if check_choice("quantised", quantised, (False, True)):
            if self.gguf_file is None:
                raise ValueError(
                    f"quantised needs a GGUF file, {self.folder} holds ordinary weights"
                )
            from surefoot.data.doors.gguf import check_gguf, load_gguf
            from surefoot.data.doors.transformers import open_tokenizer

            file = self.folder / self.gguf_file
            options = {} if dtype is None else {"dtype": dtype}
            check_gguf(file, **options)
            # First: reading it takes as much memory for a moment as the model does for good.
            tokenizer = open_tokenizer(self.folder, self.gguf_file)
            return load_gguf(file, **options), tokenizer
        from surefoot.data.doors.transformers import open_language_model

        return open_language_model(self.folder, self.gguf_file, dtype)


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
