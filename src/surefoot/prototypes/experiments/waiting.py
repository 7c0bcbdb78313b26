"""Parts of real texts that wait at size quick until their texts are embedded."""

from __future__ import annotations

import pandas as pd

from surefoot.prototypes.config import PrototypesConfig
from surefoot.prototypes.experiments.settings import why_skipped
from surefoot.record import Record


def skipped(record: Record, seed: int, part: str, source: str, config: PrototypesConfig) -> bool:
    """Whether the part waits; its table then says why."""
    why = why_skipped(part, source, config)
    if why:
        command = f"surefoot run prototypes --part {part}"
        record.note(seed, skipped=f"{why}: run {command}, or any larger size")
    return bool(why)


def told_why(record: Record) -> dict[str, pd.DataFrame]:
    """The table of a part that waits; nothing of one that ran."""
    told = sorted({str(v) for v in record.fact("skipped").all})
    return {"skipped": pd.DataFrame({"why": told})} if told else {}
