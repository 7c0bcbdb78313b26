"""How a strategy shares the budget, and the searches beside the dense networks."""

from __future__ import annotations

from collections.abc import Sequence

from surefoot.architecture._estimator.settings import Checked
from surefoot.architecture._fit.portfolio import LINEAR, Search
from surefoot.architecture._fit.searched import Searched

DENSE, BESIDE, ALONE = 0.3, 0.12, 0.45
"""Shares of the budget: dense networks beside searches, each of these, and whatever is alone."""
LEAST_SECONDS = 10.0
"""A portfolio of less time has dense networks only."""


def shares_of(how: Checked, seed: int) -> tuple[float, Sequence[tuple[float, Search]]]:
    """The share of the dense networks, and (share, search) of each search.

    Parameters
    ----------
    how
        Parameters.
    seed
        Of the searches.
    """

    def searched(source: str) -> Search:
        return Searched(
            source, how.autoencoder if source == "autoencoder" else None, how.max_width,
            how.max_depth, how.activations, how.size_penalties, how.restarts, how.alpha, seed,
        )  # fmt: skip

    if how.strategy == "dense":
        return ALONE, []
    sources = ["direct"] + ["autoencoder"] * (how.autoencoder is not None)
    if _short(how):
        # The first optimizer of torch in a process alone takes a second or two to import.
        return ALONE, []
    if how.strategy != "portfolio":
        return 0.0, [(ALONE - LINEAR, searched(how.strategy))]
    return DENSE, [(BESIDE, searched(source)) for source in sources]


def _short(how: Checked) -> bool:
    return how.strategy == "portfolio" and how.seconds is not None and how.seconds < LEAST_SECONDS


def unused(how: Checked) -> list[str]:
    """What was given and is not searched in, as notes of the certificate.

    Parameters
    ----------
    how
        Parameters.
    """
    if how.autoencoder is None or not (how.strategy in ("dense", "direct") or _short(how)):
        return []
    why = (
        f"time_budget is below {LEAST_SECONDS:g} seconds"
        if _short(how)
        else f'strategy is "{how.strategy}"'
    )
    return [f"autoencoder was not searched in: {why}"]
