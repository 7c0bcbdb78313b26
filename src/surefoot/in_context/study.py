"""Attention that descends: looped transformers beside their exact optimum, and a probe for your own."""

from __future__ import annotations

from surefoot.in_context.config import InContextConfig
from surefoot.in_context.experiments import layers, loops, optimum, real, recovered
from surefoot.study import Part, Study

STUDY = Study(
    name="in_context",
    title="Attention that descends",
    paper="Looped transformers for in-context linear regression, arXiv 2410.08292",
    config=InContextConfig,
    parts=(
        Part(
            "optimum",
            "Training reaches the exact optimum, which is not what the theorem's bound is about",
            optimum.run,
            certificates=optimum.certificates,
            tables=optimum.tables,
            figures=optimum.figures,
            expects=optimum.EXPECTS,
            seeds={"quick": 1, "standard": 5, "paper": 10},
        ),
        Part(
            "layers",
            "What one looped layer loses against as many layers, exactly",
            layers.run,
            tables=layers.tables,
            figures=layers.figures,
            deterministic=True,
        ),
        Part(
            "loops",
            "Looping on at test time: the mean diverges, the median does not",
            loops.run,
            certificates=loops.certificates,
            tables=loops.tables,
            figures=loops.figures,
            expects=loops.EXPECTS,
            seeds={"quick": 12, "standard": 20, "paper": 30},
        ),
        Part(
            "real",
            "Diabetes and digits as prompts, beside least squares and ridge",
            real.run,
            tables=real.tables,
            seeds={"quick": 1, "standard": 5, "paper": 10},
        ),
        Part(
            "probe",
            "A hidden model is recovered, every control is told from it",
            recovered.run,
            tables=recovered.tables,
            seeds={"quick": 1, "standard": 5, "paper": 10},
        ),
    ),
)
