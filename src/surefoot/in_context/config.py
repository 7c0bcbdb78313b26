"""The study's settings."""

from __future__ import annotations

from dataclasses import dataclass

from surefoot.settings import StudyConfig


@dataclass(frozen=True)
class InContextConfig(StudyConfig):
    """The study of looped linear transformers."""
