"""Which learning rates are tried where none is given, and which of them is taken."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

GRIDS: dict[str, tuple[float, ...]] = {
    "full": (1e-5, 3e-5, 1e-4, 3e-4),
    "lora": (1e-4, 3e-4, 1e-3, 3e-3),
    "rac-lora": (1e-4, 3e-4, 1e-3, 3e-3),
    "cola": (1e-4, 3e-4, 1e-3, 3e-3),
    # In unit scale those of MeZO.
    "lozo": (1e-7, 1e-6, 1e-5, 1e-4),
    "lozo-m": (1e-8, 1e-7, 1e-6, 1e-5),
    "mezo": (1e-7, 1e-6, 1e-5, 1e-4),
}
"""By method, in steps of a half or a whole decade."""
SHARE, LEAST, MOST = 0.05, 20, 60
"""Each is tried for this share of the steps, and for so many at least and at most."""
MOST_BEYOND = 2


def steps_of(steps: int) -> int:
    """Steps for which each rate is tried."""
    return max(1, min(steps, MOST, max(LEAST, round(SHARE * steps))))


def choose(
    grid: Sequence[float], attempt: Callable[[float], float], known: dict[float, float]
) -> float:
    """The rate whose short training ended at the lowest held-out loss.

    Where that is the last of the grid at either end, the next beyond is tried, twice at most.

    Parameters
    ----------
    grid
        Rising.
    attempt
        Trains for a while at a rate; the held-out loss, or infinity where it diverged.
    known
        Rates that were tried before, with their losses; the others are added.

    Raises
    ------
    ValueError
        Every rate diverged.
    """
    rates = list(grid)
    for extra in range(MOST_BEYOND + 1):
        for rate in rates:
            if rate not in known:
                known[rate] = attempt(rate)
        best = min(rates, key=lambda rate: known[rate])
        if not math.isfinite(known[best]):
            raise ValueError("the loss is not finite at any rate")
        if extra == MOST_BEYOND or best not in (rates[0], rates[-1]):
            return best
        if best == rates[0]:
            rates.insert(0, float(f"{best * rates[0] / rates[1]:.0e}"))
        else:
            rates.append(float(f"{best * best / rates[-2]:.0e}"))
    raise AssertionError("the last pass returns")
