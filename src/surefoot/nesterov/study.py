"""Accelerated descent with a measured certificate: NAG and AGNES on digits and known landscapes."""

from __future__ import annotations

from surefoot.guarantee import Verdict
from surefoot.nesterov.config import NesterovConfig
from surefoot.nesterov.experiments import (
    benign,
    digits_mlp,
    lenet,
    noise_sweep,
    regression,
    small_batches,
    three_or_eight,
)
from surefoot.study import Part, Study

STUDY = Study(
    name="nesterov",
    title="Accelerated descent with a measured certificate",
    paper="Gupta and Wojtowytsch, arXiv 2410.08395; AGNES: Gupta, Siegel and Wojtowytsch, "
    "arXiv 2302.05515",
    config=NesterovConfig,
    parts=(
        Part(
            "benign",
            "Landscapes with known constants: the promise is exact",
            benign.run,
            benign.guarantees,
            benign.certificates,
            tables=benign.tables,
            deterministic=True,
        ),
        Part(
            "noise",
            "Noise on a quadratic, by exact expectation",
            noise_sweep.run_oracle,
            noise_sweep.oracle_guarantees,
            tables=noise_sweep.oracle_tables,
            expects={noise_sweep.NAG_DIVERGES: Verdict.NOT_PROMISED},
            deterministic=True,
        ),
        Part(
            "noise-runs",
            "Noise on a quadratic, by random runs",
            noise_sweep.run_random,
            noise_sweep.random_guarantees,
            seeds={"quick": 12, "standard": 30, "paper": 100},
        ),
        Part(
            "sphere",
            "Multiplicative noise on a curved manifold: a heuristic",
            noise_sweep.run_sphere,
            noise_sweep.sphere_guarantees,
            expects={noise_sweep.SPHERE_NAG: Verdict.BROKEN},
            seeds={"quick": 8, "standard": 20, "paper": 50},
        ),
        Part(
            "regression",
            "Regression on digits: certified noise against descriptive noise",
            regression.run,
            regression.guarantees,
            tables=regression.tables,
            expects={
                regression.MEDIAN: Verdict.NOT_PROMISED,
                regression.NAG_ARM: Verdict.NOT_PROMISED,
            },
            seeds={"quick": 5, "standard": 12, "paper": 30},
        ),
        Part(
            "digits",
            "A network on digits: where the promise ends",
            digits_mlp.run,
            certificates=digits_mlp.certificates,
            tables=digits_mlp.tables,
            expects=digits_mlp.EXPECTS,
            deterministic=True,
        ),
        Part(
            "small-batches",
            "Small batches: AGNES beside its peers, nothing promised",
            small_batches.run,
            tables=small_batches.tables,
            seeds={"quick": 2, "standard": 5, "paper": 10},
        ),
        Part(
            "three-or-eight",
            "Digits 3 against 8: a promise that beats measured gradient descent",
            three_or_eight.run,
            certificates=three_or_eight.certificates,
            tables=three_or_eight.tables,
            expects=three_or_eight.EXPECTS,
            deterministic=True,
        ),
        Part(
            "lenet",
            "LeNet-5 on MNIST, the AGNES paper's experiment, nothing promised",
            lenet.run,
            tables=lenet.tables,
            sizes=("paper",),
            seeds={"quick": 1, "standard": 2, "paper": 5},
        ),
    ),
)
