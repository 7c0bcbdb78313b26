"""The study's settings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from surefoot.settings import StudyConfig


@dataclass(frozen=True)
class NesterovConfig(StudyConfig):
    """The study of accelerated descent."""

    mnist: Path | None = None
    """A folder or file with MNIST for part lenet; by default it comes from a package."""
