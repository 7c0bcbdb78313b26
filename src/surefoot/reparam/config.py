"""The study's settings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from surefoot.settings import StudyConfig


@dataclass(frozen=True)
class ReparamConfig(StudyConfig):
    """The study of FedRepOpt."""

    data: Literal["mnist5k", "mnist", "fashion"] = "mnist5k"
    """What the federation trains on; the hyper-search always takes digits."""
    images: Path | None = None
    """A folder or file with images of that format, instead of the package's."""
