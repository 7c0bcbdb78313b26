"""The study's settings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from surefoot._numerics.checks import check_number
from surefoot.settings import StudyConfig


@dataclass(frozen=True)
class PrototypesConfig(StudyConfig):
    """The study of one-round adaptation by prototypes."""

    encoder: Path | None = None
    """A sentence encoder's directory; by default MiniLM comes from a package."""
    texts: Path | None = None
    """A table of your own with columns text, label and domain, for part own."""
    images: Path | None = None
    """A folder domain/class/image for part folders, for instance DomainNet or PACS."""
    vision: str = ""
    """The image encoder of part folders: open_clip:NAME:WEIGHTS or timm:NAME:WEIGHTS, a local file."""
    classes: int = 0
    """Only the first so many classes of part folders; 0: all."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("classes", self.classes, least=0, whole=True)
