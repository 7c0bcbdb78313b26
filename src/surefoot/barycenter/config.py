"""The study's settings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from surefoot.settings import StudyConfig


@dataclass(frozen=True)
class BarycenterConfig(StudyConfig):
    """The study of semi-unbalanced barycenters."""

    eeg: Path | None = None
    """A folder with NAME_TRAIN.ts files, instead of the package's recordings."""
    motions: Path | None = None
    """A folder with NAME_TRAIN.ts and NAME_TEST.ts, instead of the package's BasicMotions."""
