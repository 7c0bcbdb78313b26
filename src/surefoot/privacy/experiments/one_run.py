"""One training with thousands of Dirac canaries, calibrated by shadow runs; and a planted bug."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from torch import Tensor

from surefoot.guarantee import Guarantee, Verdict
from surefoot.privacy import audit
from surefoot.privacy.canaries import dirac_coordinates
from surefoot.privacy.experiments.training import DPSGD, Canaries, Network, digits
from surefoot.privacy.facts import copy_facts
from surefoot.privacy.figures import steps_figure
from surefoot.privacy.guarantee import heuristic_claim, proven_claim
from surefoot.record import Record

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

DELTA, CONFIDENCE = 1e-5, 0.95
SHADOW = {"quick": 4, "standard": 4, "paper": 8}
SCORES = ("raw", "calibrated")
STATISTICS = {"one_run": "distribution-free", "one_run_fdp": "assuming Gaussian shape"}


@dataclass(frozen=True)
class Arm:
    """One training to be audited: the claim, how it really is, and how it is looked at."""

    name: str
    sizes: tuple[int, ...]
    images: int
    sigma: float
    q: float
    steps: int
    m: int
    k: int
    real_noise: float | None = None

    @property
    def claim(self) -> tuple[float, float, int]:
        """(sigma, q, T), as claimed."""
        return self.sigma, self.q, self.steps

    def column(self, score: str, statistic: str) -> str:
        """The record's name for one bound."""
        return f"{self.name}, {score} score, {STATISTICS[statistic]}"


MLP = Arm("MLP", (64, 64, 10), 1437, 1.0, 0.1, 100, 4000, 160)
SOFTMAX = Arm("softmax", (64, 10), 300, 2.0, 0.2, 200, 640, 64)
HONEST = Arm("MLP, honest noise", (64, 64, 10), 1437, 4.0, 0.1, 100, 4000, 160)
FAULT = Arm("MLP, noise ten times too small", (64, 64, 10), 1437, 4.0, 0.1, 100, 4000, 160, 0.4)


class Trainer:
    """What the audit calls; one start and one set of coordinates for all its runs."""

    def __init__(self, arm: Arm, seed: int) -> None:
        self.arm = arm
        self.network = Network(arm.sizes)
        self.x, self.y, self.test_x, self.test_y = digits(arm.images)
        self.start = self.network.initial(seed)
        self.coordinates = dirac_coordinates(self.network.parameters, arm.m, seed)
        self.ends: list[Tensor] = []
        self.settings = DPSGD(arm.sigma, arm.q, arm.steps, real_noise=arm.real_noise)
        self.record = Record()
        # The scores are of the last model, and of nothing before it.
        self.record.note(**self.settings.facts(), releases="last")

    def __call__(self, include: Tensor, seed: int) -> np.ndarray:
        """Train with the included canaries; the score of each is its move."""
        canaries = Canaries(self.coordinates, include)
        end = self.settings.train(
            self.network, self.start, self.x, self.y, seed=seed, canaries=canaries
        )
        self.ends.append(end)
        return canaries.scores(self.start, end)

    def accuracy(self) -> float:
        """Of the audited model, on the test images."""
        return self.network.accuracy(self.ends[0], self.test_x, self.test_y)


def run_arms(*arms: Arm) -> Any:
    """A part's run function for these arms."""

    def run(config: Any, seed: int, record: Record) -> None:
        for arm in arms:
            trainer = Trainer(arm, seed)
            with warnings.catch_warnings():
                # Where noise drowns the drift, shadow scores hardly agree: a result, not a mistake.
                warnings.simplefilter("ignore", audit.CalibrationWarning)
                result = audit.one_run(
                    trainer, m=arm.m, k=arm.k, delta=DELTA, confidence=CONFIDENCE,
                    shadow=SHADOW[config.size], seed=seed, claimed=arm.claim,
                )  # fmt: skip
            copy_facts(result.record, record, seed, arm.name)
            for statistic in STATISTICS:
                values = {"raw": result.raw[statistic], "calibrated": result.bounds[statistic]}
                for score in SCORES:
                    record.append(seed, 0, **{arm.column(score, statistic): values[score]})
            record.append(seed, 0, **{f"{arm.name}, test accuracy": trainer.accuracy()})
            record.append(seed, 0, **{f"{arm.name}, ceiling": result.ceiling})

    return run


def claims_of(*arms: Arm) -> Any:
    """A part's guarantees for these arms: both claims for the calibrated scores."""

    def guarantees(config: Any) -> list[Guarantee]:
        found = []
        for arm in arms:
            for statistic in STATISTICS:
                quantity = arm.column("calibrated", statistic)
                found.append(heuristic_claim(quantity, of=arm.name))
            quantity = arm.column("calibrated", "one_run")
            found.append(proven_claim(quantity, of=arm.name))
        return found

    return guarantees


def faults(arm: Arm) -> dict[str, Verdict]:
    """What the study announces of an arm whose noise is too small: every claim is refuted."""
    free, family = (arm.column("calibrated", s) for s in STATISTICS)
    names = (f"{free} <= heuristic", f"{family} <= heuristic", f"{free} <= proven")
    return dict.fromkeys(names, Verdict.BROKEN)


def figures(config: Any, record: Record) -> dict[str, Figure]:
    """Epsilon over T with the audits of the MLP."""
    if config.size == "quick":
        return {}
    found = record.constant(MLP.column("calibrated", "one_run"))
    steps = np.array([1, 3, 10, 30, 100, 300, 1000])
    audits = [(MLP.steps, float(v)) for v in found]
    return {"epsilon over T, audits pointing up": steps_figure(1.0, 0.1, steps, DELTA, audits)}


def table_of(*arms: Arm) -> Any:
    """A part's table for these arms."""

    def tables(config: Any, record: Record) -> dict[str, pd.DataFrame]:
        rows = []
        for arm in arms:
            for statistic, words in STATISTICS.items():
                raw, ours = (record.constant(arm.column(s, statistic)) for s in SCORES)
                ratios = ours / np.maximum(raw, 1e-9)
                rows.append(
                    {
                        "training": arm.name, "bound": words, "raw": raw.mean(),
                        "calibrated": ours.mean(), "lowest": ours.min(), "highest": ours.max(),
                        "median gain": float(np.median(ratios)),
                        "ceiling": record.constant(f"{arm.name}, ceiling").mean(),
                        "test accuracy": record.constant(f"{arm.name}, test accuracy").mean(),
                    }
                )  # fmt: skip
        return {f"lower bounds on epsilon at delta {DELTA:g}": pd.DataFrame(rows)}

    return tables
