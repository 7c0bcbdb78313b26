"""Equal tuning: every method tries the same learning rates, the validation split chooses."""

from __future__ import annotations

import pandas as pd

from surefoot.lora.experiments.nets import Outcome
from surefoot.record import Record

COLUMNS = ("val", "test", "train_loss", "trainable", "lr")


def best(record: Record, seed: int, arm: str, lr: float, found: Outcome) -> None:
    """Keep the outcome of a seed where its validation accuracy beats what the arm had before."""
    before = f"{arm}: val"
    if before in record:
        curves = record.curves(before)
        if (
            seed in curves.seeds
            and record.constant(before)[list(curves.seeds).index(seed)] >= found.val
        ):
            return
    values = (found.val, found.test, found.train_loss, float(found.trainable), lr)
    record.update(seed, 0, {f"{arm}: {c}": v for c, v in zip(COLUMNS, values, strict=True)})


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
            }
        )
    return pd.DataFrame(rows).sort_values("test accuracy", ascending=False, ignore_index=True)
