"""Weights and architecture in one descent: what the embedding knows, and where a search in it helps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from surefoot._numerics.checks import check_number
from surefoot.architecture.experiments import ablation, embedding, identity, rediscovery, warm_start
from surefoot.study import Part, Size, Study, StudyConfig

SEEDS: Mapping[Size, int] = {"quick": 1, "standard": 5, "paper": 10}


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


STUDY = Study(
    name="architecture",
    title="Weights and architecture in one descent",
    paper="Simultaneous weight and architecture optimisation, arXiv 2410.08339",
    config=ArchitectureConfig,
    parts=(
        Part(
            "embedding",
            "Unseen networks through the embedding, against the time spent on it",
            embedding.run,
            certificates=embedding.certificates,
            tables=embedding.tables,
            figures=embedding.figures,
            seeds=SEEDS,
        ),
        Part(
            "identity",
            "One function written two ways: one place in the embedding, or two",
            identity.run,
            guarantees=identity.guarantees,
            certificates=identity.certificates,
            tables=identity.tables,
            seeds=SEEDS,
        ),
        Part(
            "rediscovery",
            "A hidden network is found again, in the embedding and without it",
            rediscovery.run,
            tables=rediscovery.tables,
            seeds=SEEDS,
        ),
        Part(
            "warm-start",
            "A decoded network is a head start for L-BFGS",
            warm_start.run,
            guarantees=warm_start.guarantees,
            tables=warm_start.tables,
            figures=warm_start.figures,
            seeds=SEEDS,
        ),
        Part(
            "ablation",
            "Every strategy on five real tables at equal CPU time",
            ablation.run,
            tables=ablation.tables,
            figures=ablation.figures,
            seeds=SEEDS,
        ),
    ),
)
