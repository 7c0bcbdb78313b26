"""Kolmogorov-Arnold networks whose training is forecast: rates, mini-batches, labels, real data."""

from __future__ import annotations

from surefoot.kan.config import KanConfig
from surefoot.kan.experiments import diabetes, labels, poisson, rates, stochastic
from surefoot.study import Part, Study

STUDY = Study(
    name="kan",
    title="Kolmogorov-Arnold networks whose training is forecast",
    paper="Gao and Tan, arXiv 2410.08041; networks: arXiv 2404.19756",
    config=KanConfig,
    parts=(
        Part(
            "certified",
            "The linear rate where it is certified, and where labels are too large for it",
            rates.run_certified,
            rates.certified_guarantees,
            rates.certified_certificates,
            tables=rates.certified_tables,
            expects=rates.CERTIFIED_EXPECTS,
            seeds={"quick": 1, "standard": 5, "paper": 10},
        ),
        Part(
            "widths",
            "The loss that the spectrum forecasts, at each width",
            rates.run_widths,
            certificates=rates.widths_certificates,
            tables=rates.widths_tables,
            figures=rates.widths_figures,
            expects=rates.EXPECTS,
            seeds={"quick": 1, "standard": 5, "paper": 10},
        ),
        Part(
            "mini-batches",
            "The mean over mini-batches: promised, forecast, measured",
            stochastic.run,
            stochastic.guarantees,
            stochastic.certificates,
            tables=stochastic.tables,
            expects=stochastic.EXPECTS,
            seeds={"quick": 12, "standard": 16, "paper": 30},
        ),
        Part(
            "poisson",
            "Poisson's equation: a residual that is forecast, a solution that is found",
            poisson.run,
            certificates=poisson.certificates,
            tables=poisson.tables,
            expects=poisson.EXPECTS,
            seeds=poisson.SEEDS,
        ),
        Part(
            "labels",
            "Labels along eigenvectors: the order in which they are learnt",
            labels.run,
            labels.guarantees,
            labels.certificates,
            tables=labels.tables,
            expects=labels.EXPECTS,
            seeds={"quick": 1, "standard": 3, "paper": 5},
        ),
        Part(
            "diabetes",
            "Real diabetes data, beside ridge and an MLP",
            diabetes.run,
            certificates=diabetes.certificates,
            tables=diabetes.tables,
            figures=diabetes.figures,
            expects=diabetes.EXPECTS,
            seeds={"quick": 2, "standard": 5, "paper": 10},
        ),
    ),
)
