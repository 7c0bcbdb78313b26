"""Prompts from a table of real rows: some as examples, one more as the query."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from sklearn.decomposition import PCA
from torch import Tensor

from surefoot._numerics.arguments import checked
from surefoot._numerics.checks import check_choice, check_number, check_numbers
from surefoot.in_context.prompts import Prompt


@checked
class TablePrompts:
    """Random rows of a table as prompts, with features whitened by rows that no prompt uses.

    Theorems speak of Gaussian x; what they say of such prompts is for `prompt_assumptions` to judge.

    Parameters
    ----------
    X
        (rows, features): the table.
    y
        (rows,): a label a row, taken in units of its standard deviation around its mean (of the rows that
        whiten). None: every prompt gets a linear read-out of the whitened features of its own,
        w ~ N(0, I), without noise.
    n
        Examples a prompt.
    components
        Principal components that are kept; by default all of them.
    whiten_with
        "train": half of the rows, of which no prompt is made. "all": the whole table, prompts included,
        as one who has only one prompt would have to; what is measured then leans on the query's own row.
    seed
        Of the halves and of the draws.

    Attributes
    ----------
    d
        Features of a prompt.
    rows
        How many rows prompts are drawn from.

    Raises
    ------
    ValueError
        An argument is out of range, or there are fewer rows than a prompt takes.
    """

    def __init__(
        self,
        X: Float[np.ndarray, "rows features"] | Float[Tensor, "rows features"],
        y: Float[np.ndarray, " rows"] | Float[Tensor, " rows"] | None,
        n: int,
        *,
        components: int | None = None,
        whiten_with: str = "train",
        seed: int = 0,
    ) -> None:
        table = check_numbers("X", X, ndim=2)
        labels = None if y is None else check_numbers("y", y, ndim=1)
        if labels is not None and len(labels) != len(table):
            raise ValueError(
                f"y must have a number for each of the {len(table)} rows of X, got {len(labels)}"
            )
        self.n = check_number("n", n, least=1, whole=True)
        check_choice("whiten_with", whiten_with, ("train", "all"))
        seed = check_number("seed", seed, least=0, whole=True)
        order = np.random.default_rng(seed).permutation(len(table))
        half = len(table) // 2
        first, held = (order, order) if whiten_with == "all" else (order[:half], order[half:])
        if len(held) < self.n + 1:
            raise ValueError(
                f"X must have at least {self.n + 1} rows that prompts are drawn from, got {len(held)}"
            )
        most = min(len(first), table.shape[1])
        kept = check_number(
            "components", most if components is None else components, least=1, most=most, whole=True
        )
        whitener = PCA(kept, whiten=True, svd_solver="full").fit(table[first])
        if whitener.explained_variance_[-1] <= 1e-12 * whitener.explained_variance_[0]:
            raise ValueError(
                f"components must be fewer: of {kept} principal components some have no variance, which "
                "cannot be whitened"
            )
        self.d = kept
        self.rows = len(held)
        self._X = torch.from_numpy(whitener.transform(table[held]))
        self._y = None if labels is None else _standard(labels[held], labels[first])
        self._generator = torch.Generator().manual_seed(seed)

    def sample(self, B: int) -> Prompt:
        """The next B prompts, each of n + 1 different rows.

        `w` are the weights of the read-out; of given labels, of least squares over all rows that prompts are
        drawn from.
        """
        B = check_number("B", B, least=1, whole=True)
        chosen = torch.rand(B, self.rows, generator=self._generator).argsort(1)[:, : self.n + 1]
        X = self._X[chosen]
        if self._y is None:
            w = torch.randn(B, self.d, generator=self._generator, dtype=X.dtype)
            y = (X @ w[:, :, None])[..., 0]
        else:
            y = self._y[chosen]
            w = torch.linalg.lstsq(self._X, self._y[:, None]).solution.mT.expand(B, -1)
        return Prompt(X[:, :-1].mT, y[:, :-1], X[:, -1], y[:, -1], w)


def _standard(labels: Any, by: Any) -> Tensor:
    spread = float(by.std())
    if not spread > 0:
        raise ValueError("y must not be the same number in every row")
    return torch.from_numpy((labels - by.mean()) / spread)
