"""Robust averages of Gaussians: the published picture, dimension, acceleration, real contamination."""

from __future__ import annotations

from surefoot.barycenter.config import BarycenterConfig
from surefoot.barycenter.experiments import (
    closed_form,
    convergence,
    motions,
    picture,
    robustness,
    speed,
)
from surefoot.guarantee import Verdict
from surefoot.study import Part, Study

STUDY = Study(
    name="barycenter",
    title="Robust averages of Gaussians",
    paper="Semi-unbalanced barycenters of Gaussians, arXiv 2410.08117",
    config=BarycenterConfig,
    parts=(
        Part(
            "closed-form",
            "The closed form of one pair is the minimum",
            closed_form.run,
            closed_form.guarantees,
            tables=closed_form.tables,
            seeds={"quick": 1, "standard": 3, "paper": 5},
        ),
        Part(
            "picture",
            "The published outlier picture is an unconverged iterate",
            picture.run,
            picture.guarantees,
            tables=picture.tables,
            figures=picture.figures,
            deterministic=True,
        ),
        Part(
            "dimension",
            "Unit steps do not feel the dimension",
            speed.run_dimension,
            tables=speed.dimension_tables,
            seeds={"quick": 1, "standard": 3, "paper": 5},
        ),
        Part(
            "acceleration",
            "Unit steps slow down like 1/tau, Barzilai-Borwein steps do not",
            speed.run_acceleration,
            tables=speed.acceleration_tables,
            figures=speed.acceleration_figures,
            seeds={"quick": 1, "standard": 2, "paper": 5},
        ),
        Part(
            "eeg",
            "Real EEG trials, 30 % of them spoilt",
            robustness.run_eeg,
            tables=robustness.eeg_tables,
            sizes=("standard", "paper"),
            seeds={"quick": 1, "standard": 5, "paper": 20},
        ),
        Part(
            "digits",
            "Digits, where the truth is known",
            robustness.run_digits,
            tables=robustness.digits_tables,
            seeds={"quick": 1, "standard": 5, "paper": 20},
        ),
        Part(
            "motions",
            "Four activities told apart, 3 of 10 recordings of each spoilt",
            motions.run,
            tables=motions.tables,
            sizes=("standard", "paper"),
            seeds={"quick": 1, "standard": 5, "paper": 20},
            extras=("bench",),
        ),
        Part(
            "convergence",
            "The authors' convergence setting: the loss that they plot is saturated",
            convergence.run,
            convergence.guarantees,
            tables=convergence.tables,
            expects={convergence.SATURATED: Verdict.BROKEN},
            sizes=("standard", "paper"),
            deterministic=True,
        ),
    ),
)
