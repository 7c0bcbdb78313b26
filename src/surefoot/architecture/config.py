"""The study's settings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from surefoot._numerics.checks import check_number
from surefoot.settings import StudyConfig


@dataclass(frozen=True)
class ArchitectureConfig(StudyConfig):
    """The study of networks embedded by what they compute.

    Parameters
    ----------
    seconds
        CPU seconds of each arm of the ablation; by default those of the size.
    arms
        Those of the ablation to run, all of them by default.
    decoder
        A file of `surefoot architecture pretrain` for the ablation; by default the one in the cache, which is
        trained where it is missing, and at quick one that is trained for half a second.

    Raises
    ------
    ValueError
        The seconds are not positive.
    """

    seconds: float | None = None
    """CPU seconds of each arm of the ablation; by default those of the size."""
    arms: tuple[str, ...] = ()
    """The arms of the ablation to run, all of them by default."""
    decoder: Path | None = None
    """A file of `surefoot architecture pretrain` for the ablation; by default the one in the cache."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.seconds is not None:
            check_number("seconds", self.seconds, above=0)
