"""Accuracy for bytes: every arm under equal tuning, on the same encoder, head and adapter."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import pandas as pd

from surefoot._problems.paired import paired
from surefoot._problems.tuning import Chosen, EqualTuning
from surefoot.prototypes.config import PrototypesConfig
from surefoot.prototypes.experiments.arms import (
    Score,
    federated_arms,
    handicapped,
    one_round_arms,
    stopped_early,
    zero_shot,
)
from surefoot.prototypes.experiments.figures import bytes_figure
from surefoot.prototypes.experiments.settings import setting_of
from surefoot.prototypes.experiments.waiting import skipped, told_why
from surefoot.record import Record

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

MEASURED = ("test", "others", "worst", "megabytes")
ONE_ROUND, SHORT = "FedAvg, 1 round", "FedAvg, 1 round of 1 or 5 local epochs"
LONG = "20 local epochs, 1 round"
BASES = ("FedPFT K=1", ONE_ROUND)
STOPPED = "mean, the paper's stop rule"
HANDICAP = {"quick": (1,), "standard": (1, 5, 19)}
"""Rounds after which FedAvg under the paper's schedule is looked at; the last is where it was best."""
TEST_SHARE = 0.30 / 0.56
"""Test records for each training record: what corrects the interval for splits that overlap."""


def run_on(source: str) -> Callable[[PrototypesConfig, int, Record], None]:
    """Candidates of every arm; the validation split chooses, the test split is reported."""

    def run(config: PrototypesConfig, seed: int, record: Record) -> None:
        if skipped(record, seed, source, source, config):
            return
        size = "quick" if config.size == "quick" else "standard"
        setting = setting_of(source, config, seed)
        tuning = EqualTuning("higher")
        note(record, seed, "zero-shot", zero_shot(setting))
        found = one_round_arms(setting, size, seed) | federated_arms(setting, size, seed)
        for arm, scores in found.items():
            chosen = choose(tuning, arm, scores)
            note(record, seed, arm, chosen.found)
            record.note(seed, arm, candidates=len(scores), ties=len(chosen.tied))
        few = [s for s in found[ONE_ROUND] if not s.what.endswith(LONG)]
        note(record, seed, SHORT, max(few, key=lambda s: s.val))
        record.note(seed, SHORT, candidates=len(few))
        note(record, seed, STOPPED, stopped_early(setting, seed))
        for score in handicapped(setting, HANDICAP[size], seed):
            note(record, seed, paper_arm(score.what), score)

    return run


def choose(tuning: EqualTuning, arm: str, scores: Sequence[Score]) -> Chosen[Score]:
    """The candidate that the validation split prefers."""

    def attempt(i: float) -> tuple[float, Score]:
        return scores[int(i)].val, scores[int(i)]

    return tuning.choose(arm, [float(i) for i in range(len(scores))], attempt)


def note(record: Record, seed: int, arm: str, score: Score) -> None:
    """One arm's numbers on the test split, and how it was chosen."""
    record.append(seed, 0, **{f"{arm}: {name}": getattr(score, name) for name in MEASURED})
    record.note(seed, arm, chosen=score.what)


def paper_arm(rounds: str) -> str:
    """FedAvg with ten rounds of warm-up, called what it is."""
    return f"FedAvg, the paper's schedule (handicapped), {rounds}"


def arms_of(record: Record) -> list[str]:
    """Those that were recorded."""
    return [q.removesuffix(": test") for q in record.quantities if q.endswith(": test")]


def tables(config: PrototypesConfig, record: Record) -> dict[str, pd.DataFrame]:
    """Accuracy and bytes, best first, with the paired differences to two peers."""
    if told := told_why(record):
        return told
    arms = arms_of(record)
    rows = []
    for arm in arms:
        values = {m: record.constant(f"{arm}: {m}") for m in MEASURED}
        row = {"arm": arm, "accuracy, own domain": values["test"].mean(),
               "other domains": values["others"].mean(), "worst domain": values["worst"].mean(),
               "MB up": values["megabytes"].mean()}  # fmt: skip
        for base in BASES:
            difference, plain, corrected = paired(
                values["test"] - record.constant(f"{base}: test"), TEST_SHARE
            )
            # Percents of one count differ by rounding alone.
            row |= {f"minus {base}": round(difference, 9), f"{base}: 95 % interval +-": plain,
                    f"{base}: corrected for overlapping splits +-": corrected}  # fmt: skip
        tried = sorted(set(record.fact("candidates", arm).all))
        rows.append(row | {"candidates": ", ".join(map(str, tried)) or "none, nothing is tuned"})
    frame = pd.DataFrame(rows).sort_values("accuracy, own domain", ascending=False)
    seeds = len(record.constant("zero-shot: test"))
    splits = f"{seeds} split{'s' if seeds != 1 else ''}"
    title = f"accuracy in percent and megabytes of all uploads, {splits}, equal tuning"
    return {title: frame.reset_index(drop=True), "what the validation split chose": choices(record)}


def choices(record: Record) -> pd.DataFrame:
    """Of every arm, the most frequent first."""
    rows = []
    for arm in arms_of(record):
        told = [str(v) for values in record.fact("chosen", arm).values.values() for v in values]
        counted = Counter(told).most_common()
        rows.append({"arm": arm, "chosen": "; ".join(f"{what} ({n})" for what, n in counted)})
    return pd.DataFrame(rows)


def figures(config: PrototypesConfig, record: Record) -> dict[str, Figure]:
    """Accuracy against bytes."""
    if told_why(record):
        return {}
    points = [
        (arm, float(record.constant(f"{arm}: megabytes").mean()),
         float(record.constant(f"{arm}: test").mean()))
        for arm in arms_of(record)
    ]  # fmt: skip
    return {"accuracy against bytes": bytes_figure(points)}
