"""The study's settings."""

from __future__ import annotations

from dataclasses import dataclass

from surefoot.settings import StudyConfig


@dataclass(frozen=True)
class KanConfig(StudyConfig):
    """The study of Kolmogorov-Arnold networks and their tangent matrices."""
