"""Image encoders by a local file of weights: open_clip with its text head, timm without one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from surefoot.errors import FileFormatError, SurefootError
from surefoot.prototypes.embedding import Encoder, from_open_clip, from_timm

PACKAGES = {"open_clip": "open_clip_torch", "timm": "timm"}
FORM = "open_clip:NAME:WEIGHTS or timm:NAME:WEIGHTS, for instance open_clip:ViT-B-32:/models/vit_b_32.pt"
TextEncoder = Callable[[Sequence[str]], Tensor]


class FilesEncoder(nn.Module):
    """Paths of images to embeddings: opened, brought to the encoder's size and colours, encoded."""

    def __init__(
        self, model: nn.Module, encoder: Encoder, transform: Callable[[Any], Tensor]
    ) -> None:
        super().__init__()
        self.model, self._encoder, self._transform = model, encoder, transform

    def forward(self, batch: Sequence[Path]) -> Float[Tensor, "B d"]:
        """The embeddings of some files."""
        return self._encoder(torch.stack([self._opened(Path(file)) for file in batch]))

    def _opened(self, file: Path) -> Tensor:
        from PIL import Image, UnidentifiedImageError

        try:
            with Image.open(file) as image:
                return self._transform(image.convert("RGB"))
        except (OSError, UnidentifiedImageError) as error:
            raise FileFormatError(f"{file} is no readable image: {error}") from error


def parsed(vision: str) -> tuple[str, str, Path]:
    """Library, name of the architecture, file of weights.

    Raises
    ------
    ValueError
        It is not of the form library:name:file.
    surefoot.errors.FileFormatError
        There is no such file.
    """
    parts = vision.split(":", 2)
    if len(parts) != 3 or parts[0] not in PACKAGES or not all(parts):
        raise ValueError(f"vision must be {FORM}, got {vision!r}")
    weights = Path(parts[2]).expanduser()
    if not weights.is_file():
        raise FileFormatError(f"there is no file of weights {weights}; vision must be {FORM}")
    return parts[0], parts[1], weights


def vision_encoder(vision: str) -> tuple[FilesEncoder, TextEncoder | None]:
    """An encoder of image files, and of prompts where the library has one.

    Raises
    ------
    SurefootError
        The library is not installed.
    """
    library, name, weights = parsed(vision)
    try:
        return _open_clip(name, weights) if library == "open_clip" else _timm(name, weights)
    except ModuleNotFoundError as error:
        raise SurefootError(
            f"vision {vision} needs {error.name}, which is not installed; run: pip install "
            f"{PACKAGES[library]}"
        ) from error


def _open_clip(name: str, weights: Path) -> tuple[FilesEncoder, TextEncoder]:
    import open_clip

    model, _, transform = open_clip.create_model_and_transforms(name, pretrained=str(weights))
    tokenizer = open_clip.get_tokenizer(name)

    def encode(prompts: Sequence[str]) -> Tensor:
        with torch.no_grad():
            found: Tensor = model.encode_text(tokenizer(list(prompts)))
        return found

    model.eval()
    return FilesEncoder(model, from_open_clip(model), transform), encode


def _timm(name: str, weights: Path) -> tuple[FilesEncoder, None]:
    import timm

    model = timm.create_model(name, checkpoint_path=str(weights)).eval()
    settings = timm.data.resolve_model_data_config(model)
    transform = timm.data.create_transform(**settings, is_training=False)
    return FilesEncoder(model, from_timm(model), transform), None
