"""How a strategy shares the budget, and the searches beside the dense networks."""

from __future__ import annotations

from collections.abc import Sequence

from surefoot.architecture._estimator.settings import Checked
from surefoot.architecture._fit.portfolio import Search

DENSE, ALONE = 0.3, 0.45


def shares_of(how: Checked, seed: int) -> tuple[float, Sequence[tuple[float, Search]]]:
    """The share of the dense networks, and (share, search) of each search.

    Parameters
    ----------
    how
        Parameters.
    seed
        Of the searches.
    """
    return ALONE, []
