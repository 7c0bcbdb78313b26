"""Every arm at its own learning rate, chosen by validation accuracy under the rule of all studies."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pandas as pd

from surefoot._problems.tuning import EqualTuning, remarks
from surefoot.lora.experiments.nets import Outcome
from surefoot.record import Record

COLUMNS = ("val", "test", "train_loss", "trainable", "lr")


def tune(
    record: Record,
    seed: int,
    tuning: EqualTuning,
    arm: str,
    rates: Sequence[float],
    train: Callable[[float], Outcome],
) -> None:
    """Keep the outcome of the rate with the best validation accuracy."""

    def attempt(lr: float) -> tuple[float, Outcome]:
        found = train(lr)
        return found.val, found

    chosen = tuning.choose(arm, rates, attempt)
    found = chosen.found
    values = (found.val, found.test, found.train_loss, float(found.trainable), chosen.value)
    record.update(seed, 0, {f"{arm}: {c}": v for c, v in zip(COLUMNS, values, strict=True)})
    chosen.note(record, arm, seed)


def compare(record: Record) -> pd.DataFrame:
    """Mean and standard deviation over the seeds, one row an arm."""
    arms = [q.removesuffix(": test") for q in record.quantities if q.endswith(": test")]
    rows = []
    for arm in arms:
        values = {c: record.constant(f"{arm}: {c}") for c in COLUMNS}
        rows.append(
            {
                "method": arm,
                "trainable numbers": int(values["trainable"][0]),
                "test accuracy": float(values["test"].mean()),
                "sd": float(values["test"].std(ddof=1)) if len(values["test"]) > 1 else 0.0,
                "train loss": float(values["train_loss"].mean()),
                "seeds": len(values["test"]),
                "learning rates chosen": ", ".join(f"{v:g}" for v in values["lr"]),
                "tuning": remarks(record, arm),
            }
        )
    return pd.DataFrame(rows).sort_values("test accuracy", ascending=False, ignore_index=True)
