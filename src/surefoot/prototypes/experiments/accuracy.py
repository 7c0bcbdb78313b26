"""Accuracy for bytes: every arm under equal tuning, on the same encoder, head and adapter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import t

from surefoot._problems.tuning import Chosen, EqualTuning
from surefoot.prototypes.experiments.arms import (
    Score,
    federated_arms,
    handicapped,
    one_round_arms,
    stopped_early,
    zero_shot,
)
from surefoot.prototypes.experiments.settings import setting_of
from surefoot.record import Record

QUICK, STANDARD = "quick", "standard"
MEASURED = ("test", "others", "worst", "megabytes")
HANDICAPPED = "FedAvg, 1 round, the paper's schedule (handicapped)"
BASE = "FedPFT K=1"
TEST_SHARE = 0.30 / 0.56
"""Test records for each training record: what corrects the interval for splits that overlap."""


def run(source: str, config: Any, seed: int, record: Record) -> None:
    """Candidates of every arm; the validation split chooses, the test split is reported."""
    size = QUICK if config.size == QUICK else STANDARD
    setting = setting_of(source, config.size, seed, config.encoder, config.texts)
    tuning = EqualTuning("higher")
    note(record, seed, "zero-shot", zero_shot(setting))
    for candidates in (one_round_arms(setting, size, seed), federated_arms(setting, size, seed)):
        for arm, scores in candidates.items():
            chosen = choose(tuning, arm, scores)
            note(record, seed, arm, chosen.found)
            record.note(seed, arm, candidates=len(scores), ties=len(chosen.tied))
    note(record, seed, "mean, the paper's stop rule", stopped_early(setting, seed))
    note(record, seed, HANDICAPPED, handicapped(setting, 1, seed)[0])


def choose(tuning: EqualTuning, arm: str, scores: Sequence[Score]) -> Chosen[Score]:
    """The candidate that the validation split prefers."""

    def attempt(i: float) -> tuple[float, Score]:
        return scores[int(i)].val, scores[int(i)]

    return tuning.choose(arm, [float(i) for i in range(len(scores))], attempt)


def note(record: Record, seed: int, arm: str, score: Score) -> None:
    """One arm's numbers on the test split, and how it was chosen."""
    record.append(seed, 0, **{f"{arm}: {name}": getattr(score, name) for name in MEASURED})
    record.note(seed, arm, chosen=score.what)


def tables(config: Any, record: Record) -> dict[str, pd.DataFrame]:
    """Accuracy and bytes, best first, with the paired difference to FedPFT K = 1."""
    arms = [q.removesuffix(": test") for q in record.quantities if q.endswith(": test")]
    rows = []
    for arm in arms:
        values = {m: record.constant(f"{arm}: {m}") for m in MEASURED}
        difference, plain, corrected = paired(
            values["test"] - record.constant(f"{BASE}: test"), TEST_SHARE
        )
        rows.append(
            {"arm": arm, "accuracy, own domain": values["test"].mean(),
             "other domains": values["others"].mean(), "worst domain": values["worst"].mean(),
             "MB up": values["megabytes"].mean(), f"minus {BASE}": difference,
             "95 % interval +-": plain, "corrected for overlapping splits +-": corrected,
             "candidates": ", ".join(map(str, sorted(set(record.fact("candidates", arm).all))))}
        )  # fmt: skip
    frame = pd.DataFrame(rows).sort_values("accuracy, own domain", ascending=False)
    return {"accuracy in percent, and bytes": frame.reset_index(drop=True)}


def paired(differences: np.ndarray, test_share: float) -> tuple[float, float, float]:
    """Mean, half-width of its 95 % t-interval, and the half-width of Nadeau and Bengio (2003).

    Re-splits of one data set overlap: the corrected variance is larger by 1 / J + n_test / n_train.
    """
    J = len(differences)
    if J < 2:
        return float(differences.mean()), float("nan"), float("nan")
    q, sd = float(t.ppf(0.975, J - 1)), float(differences.std(ddof=1))
    return float(differences.mean()), q * sd / J**0.5, q * sd * (1 / J + test_share) ** 0.5
