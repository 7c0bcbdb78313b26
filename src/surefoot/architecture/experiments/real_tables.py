"""The five real tables of the ablation; a quarter is to test on, which nothing but the last score reads."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Shaped
from sklearn.datasets import make_friedman1
from sklearn.model_selection import train_test_split

from surefoot import data

CLASSES = ("digits", "breast_cancer", "wine")
NUMBERS = ("friedman1", "diabetes")
TABLES = (*NUMBERS, "wine", "breast_cancer", "digits")
TEST = 0.25
CAPS = {
    "friedman1": (30, 40, 60, 120), "diabetes": (5, 10, 20, 40), "wine": (10, 20, 40, 80),
    "breast_cancer": (5, 10, 20, 40), "digits": (200, 300, 400, 500),
}  # fmt: skip
"""Non-zero numbers at which the fronts are compared."""


class Split(NamedTuple):
    """Rows for the fit and for the test; classes are 0..C-1."""

    X: Float64[np.ndarray, "n features"]
    X_test: Float64[np.ndarray, "m features"]
    y: Shaped[np.ndarray, " n"]
    y_test: Shaped[np.ndarray, " m"]
    classifies: bool

    def relative_error(self, f: Float64[np.ndarray, "m outputs"]) -> float:
        """Test error over that of the constant model, of a network's outputs on the test rows.

        Squared error, beside the mean of the test rows; or share of wrong classes, beside the largest class.
        """
        y = self.y_test
        if not self.classifies:
            return float(np.mean((f[:, 0] - y) ** 2) / np.var(y))
        chosen = (f[:, 0] > 0).astype(int) if f.shape[1] == 1 else f.argmax(axis=1)
        return float(np.mean(chosen != y) / (1 - np.bincount(y).max() / len(y)))

    def score(self, error: float) -> float:
        """R2 or accuracy, of a relative error."""
        if not self.classifies:
            return 1 - error
        return float(1 - error * (1 - np.bincount(self.y_test).max() / len(self.y_test)))


def split(name: str, seed: int) -> Split:
    """One table, split at random, classes in equal shares; friedman1 is drawn anew.

    Parameters
    ----------
    name : str
        One of `TABLES`.
    seed : int
        Of the split, and of friedman1's 1200 rows of 10 columns with noise 0.5.
    """
    if name == "friedman1":
        X, y = make_friedman1(1200, n_features=10, noise=0.5, random_state=seed)
    else:
        table = data.load(name)
        X, y = table.x, table.y
    strata = y if name in CLASSES else None
    x_train, x_test, y_train, y_test = train_test_split(
        X, y, test_size=TEST, random_state=seed, stratify=strata
    )
    return Split(x_train, x_test, y_train, y_test, classifies=name in CLASSES)


def hypervolume(points: list[tuple[float, float]]) -> float:
    """Of (non-zero numbers, relative error): the share of [0, 3.5] x [0, 1] above and right of the front.

    The first axis is log10 of the numbers, errors are clipped to [0, 1], the reference is (3.5, 1).

    Parameters
    ----------
    points : list of (float, float)
        Any points, dominated ones too.
    """
    area, best = 0.0, 1.0
    for size, error in sorted(points):
        x, y = min(max(np.log10(max(size, 1)), 0.0), 3.5), min(max(error, 0.0), 1.0)
        if y < best:
            area += (3.5 - x) * (best - y)
            best = y
    return area / 3.5
