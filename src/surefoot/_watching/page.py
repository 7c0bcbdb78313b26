"""A watched training as a run folder, with its page among those of the studies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from surefoot._run.single import curve_figure, write_single
from surefoot._watching.theorems import Offer, offers
from surefoot.certificate import Certificate, certify
from surefoot.record import Record

STUDY, PART = "watch", "training"
TITLE = "A watched training"


def certificates(
    record: Record, config: Mapping[str, Any], confidence: float = 0.99
) -> list[Certificate]:
    """What a watched record holds against each theorem that is offered to it.

    Parameters
    ----------
    record
        With what follows from what was measured (`derived`).
    config
        Of the run; it decides nothing.
    confidence
        Of the certificates.
    """
    return [
        certify(record, offer.guarantee, confidence)
        for offer in offers(record)
        if offer.guarantee is not None
    ]


def write_watched(
    root: Path,
    record: Record,
    certificates: Sequence[Certificate],
    offered: Sequence[Offer],
    settings: Mapping[str, Any],
    confidence: float,
    seconds: float,
) -> Path:
    """Write a run folder below `root`, its page, and the index of all; return the page.

    Parameters
    ----------
    root
        The folder that holds all runs.
    record
        Of the training.
    certificates, offered
        What it was held against, and what might have been.
    settings
        What was watched, in words and numbers.
    confidence
        Of the certificates.
    seconds
        How long it took.
    """
    from surefoot.report import write_run_page, write_site

    table = [
        {"guarantee": o.name, "offered": o.guarantee is not None, "why not": o.why_not}
        for o in offered
    ]
    shown = [name for name in record.quantities if name not in record.private_quantities]
    folder = write_single(
        root, STUDY, title=TITLE, paper="a training of one's own", part=PART, about=TITLE,
        record=record, certificates=certificates, tables={"What was offered": pd.DataFrame(table)},
        figures={name: curve_figure(record, name) for name in shown},
        config=settings, command="surefoot.watch", seconds=seconds, confidence=confidence,
    )  # fmt: skip
    page = write_run_page(folder)
    write_site(root)
    return page
