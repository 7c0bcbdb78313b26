"""The study's settings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from surefoot.settings import StudyConfig


@dataclass(frozen=True)
class LoraConfig(StudyConfig):
    """The study of low-rank chains."""

    mnist: Path | None = None
    """A folder or file with MNIST for part mnist; by default it comes from a package."""
    encoder: Path | None = None
    """A model directory for parts encoder and glue; by default MiniLM, for part glue none."""
    texts: Path | None = None
    """Rated texts for part encoder; by default sentiment4 comes from a package."""
    labelled: Path | None = None
    """A folder of labelled texts with train and validation files for part glue, for instance RTE."""
