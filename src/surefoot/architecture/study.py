"""Weights and architecture in one descent: what the embedding knows, and where a search in it helps."""

from __future__ import annotations

from collections.abc import Mapping

from surefoot.architecture.config import ArchitectureConfig
from surefoot.architecture.experiments import ablation, embedding, identity, rediscovery, warm_start
from surefoot.study import Part, Size, Study

SEEDS: Mapping[Size, int] = {"quick": 1, "standard": 5, "paper": 10}


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
