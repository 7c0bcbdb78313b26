"""A CSV file as features and a target."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from surefoot.errors import SurefootError, nearest

DISTINCT = 20
"""Whole numbers of at most so many values are classes."""


def read_table(path: Path, target: str) -> tuple[Any, Any, list[str]]:
    """Features, target and the names of the features.

    Parameters
    ----------
    path
        A CSV file.
    target
        One of its columns.

    Raises
    ------
    SurefootError
        The file is not there or unreadable, has no rows, a column without a name or two of one name, the
        target is not in it, a feature has words, or a value is missing.
    """
    import pandas as pd

    try:
        header = pd.read_csv(path, header=None, nrows=1, dtype=str).iloc[0]
        with warnings.catch_warnings():
            # Else pandas takes the first column for names of rows, and every value for that of the next
            # column.
            warnings.simplefilter("error", pd.errors.ParserWarning)
            table = pd.read_csv(path, index_col=False)
    except pd.errors.ParserWarning:
        raise SurefootError(
            f"the rows of {path} have more values than its header has names"
        ) from None
    except FileNotFoundError:
        raise SurefootError(f"there is no file {path}") from None
    except (OSError, ValueError) as error:
        raise SurefootError(f"{path} is not readable as CSV: {error}") from error
    if header.isna().any():
        raise SurefootError(
            f"column {int(header.isna().argmax()) + 1} of {path} has no name; name it or leave it out"
        )
    if header.duplicated().any():
        raise SurefootError(f"{path} has two columns {header[header.duplicated()].iloc[0]!r}")
    if target not in table.columns:
        near = nearest(target, table.columns)
        hint = f"; did you mean {near!r}?" if near else ""
        raise SurefootError(
            f"{path} has no column {target!r}; it has {', '.join(table.columns)}{hint}"
        )
    if not len(table):
        raise SurefootError(f"{path} has a header and no rows")
    x, y = table.drop(columns=target), table[target]
    words = [str(c) for c in x.columns if not numeric(x[c]) and x[c].dtype.kind != "b"]
    if words:
        raise SurefootError(
            f"columns {', '.join(words)} have words; encode them as numbers or leave them out"
        )
    if not x.shape[1]:
        raise SurefootError(f"{path} has no column beside {target!r}")
    missing = table.columns[table.isna().any()].tolist()
    if missing:
        raise SurefootError(
            f"columns {', '.join(missing)} lack values; fill them in or leave the rows out"
        )
    return x, y, [str(c) for c in x.columns]


def guessed_task(y: Any) -> str:
    """ "classification" for words, and for whole numbers of few values."""
    if not numeric(y):
        return "classification"
    few = y.nunique() <= DISTINCT and bool((y == y.round()).all())
    return "classification" if few else "regression"


def numeric(column: Any) -> bool:
    """Whether a column has numbers."""
    return column.dtype.kind in "iuf"
