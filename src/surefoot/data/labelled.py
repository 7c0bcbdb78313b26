"""Labelled sentences and pairs of sentences on disk, in the layout of the GLUE tasks."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from surefoot.data.frames import column, read_frame
from surefoot.errors import FileFormatError

FIRST = ("text", "sentence", "sentence1", "premise", "question1", "question")
SECOND = ("sentence2", "hypothesis", "question2", "passage")
LABELS = ("label", "coarse_label", "gold_label")
VALIDATION = ("validation", "valid", "dev", "validation_matched")


def labelled(path: str | Path) -> pd.DataFrame:
    """Rows with a class: columns `split` (str: train or validation), `text`, `second` (str) and `label`.

    Parameters
    ----------
    path
        A folder with one file a split (train, validation or dev) or a file with a column `split`, of any
        kind that `surefoot.data.load` takes for texts: a clone of a dataset repository, or what
        `save_to_disk` wrote. The text is in a column text, sentence, sentence1, premise, question1 or
        question, a second one in sentence2, hypothesis, question2 or passage (empty without), the class in
        label, coarse_label or gold_label. Negative classes stand for unknown ones; such rows are left out.

    Raises
    ------
    FileFormatError
        If a column or one of the two splits is missing, or classes are not whole numbers from 0.
    """
    path = Path(path).expanduser()
    frame = read_frame(path)
    if "split" not in frame:
        raise FileFormatError(f"{path} names no splits: train and validation files are needed")
    lower = {str(c).lower(): c for c in frame.columns}
    second = next((frame[lower[name]] for name in SECOND if name in lower), None)
    labels = column(frame, LABELS, path)
    if not pd.api.types.is_integer_dtype(labels):
        raise FileFormatError(
            f"{path}: column {labels.name!r} must hold whole numbers, got {labels.dtype}"
        )
    split = frame["split"].astype(str).str.lower()
    made = pd.DataFrame(
        {
            "split": split.where(~split.isin(VALIDATION), "validation"),
            "text": column(frame, FIRST, path).astype(str),
            "second": "" if second is None else second.astype(str),
            "label": labels.astype("int64"),
        }
    )
    made = made[(made["label"] >= 0) & made["split"].isin(["train", "validation"])]
    for name in ("train", "validation"):
        if not (made["split"] == name).any():
            raise FileFormatError(f"{path} holds no labelled rows of the split {name}")
    return made.reset_index(drop=True)
