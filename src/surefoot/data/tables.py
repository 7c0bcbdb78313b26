"""Small tables: the sets inside scikit-learn, and users' own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float64, Int64

from surefoot._numerics.arguments import checked
from surefoot.data.frames import read_frame
from surefoot.errors import FileFormatError

TARGETS = ("target", "label", "y")


@checked(nan=True)
@dataclass(frozen=True)
class Table:
    """Measurements and what is to be told from them."""

    x: Float64[np.ndarray, "n d"]
    """In the units of the source. `diabetes` is scaled by scikit-learn: mean 0, sum of squares 1."""
    y: Int64[np.ndarray, "n"] | Float64[np.ndarray, "n"]
    """Class numbers, or real values where `target_names` is empty."""
    feature_names: tuple[str, ...]
    """The name of each column of x."""
    target_names: tuple[str, ...]
    """The name of each class; empty for a regression."""


def from_sklearn(name: str) -> Table:
    """A set that comes with scikit-learn, as its own loader gives it."""
    from sklearn import datasets

    found = getattr(datasets, f"load_{name}")()
    classes = tuple(str(c) for c in found.get("target_names", ()))
    return Table(
        x=np.asarray(found.data, dtype=np.float64),
        y=np.asarray(found.target, dtype=np.int64 if classes else np.float64),
        feature_names=tuple(map(str, found.feature_names)),
        target_names=classes,
    )


def read(path: Path) -> Table:
    """Users' own table: one row per case, the target in the column target, label or y, or the last.

    Whole numbers and words are classes, numbered in sorted order; other numbers are values to
    regress on. Every other column is a number.
    """
    frame = read_frame(path)
    if len(frame.columns) < 2:
        raise FileFormatError(f"{path} needs at least one measurement and a target per row")
    names = {str(c).lower(): c for c in frame.columns}
    target = next((names[t] for t in TARGETS if t in names), frame.columns[-1])
    features = frame.drop(columns=[target])
    if "split" in features and not pd.api.types.is_numeric_dtype(features["split"]):
        features = features.drop(columns=["split"])
    words = [str(c) for c in features if not pd.api.types.is_numeric_dtype(features[c])]
    if words:
        raise FileFormatError(f"{path} has a column {words[0]!r} that is not of numbers")
    x = features.to_numpy(dtype=np.float64)
    y = frame[target]
    if not np.isfinite(x).all() or y.isna().any():
        raise FileFormatError(f"{path} has missing or infinite values; remove those rows first")
    columns = tuple(map(str, features.columns))
    if pd.api.types.is_float_dtype(y):
        return Table(x, y.to_numpy(dtype=np.float64), columns, ())
    classes, codes = np.unique(y.to_numpy(), return_inverse=True)
    return Table(x, codes.astype(np.int64), columns, tuple(map(str, classes)))
