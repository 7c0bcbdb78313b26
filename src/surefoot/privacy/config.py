"""The study's settings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from surefoot.settings import StudyConfig


@dataclass(frozen=True)
class PrivacyConfig(StudyConfig):
    """The study of privacy."""

    mnist: Path | None = None
    """A folder or file with MNIST for part opacus at size paper; by default it comes from a package."""
