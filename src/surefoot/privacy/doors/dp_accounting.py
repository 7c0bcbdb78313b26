"""dp-accounting behind one function, to compare with: another implementation of the same curves.

No proven value of this package comes from here: its transform rounds by 1e-15 to 1e-13, which nothing in its
answer covers, and its grid is fixed. A PLD's grid grows with the loss: at a large epsilon it takes gigabytes
and minutes. The grid is therefore widened first, and past that Renyi accounting takes over. What was done is
said in the note.
"""

from __future__ import annotations

import functools
import importlib
import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from surefoot.errors import need

Method = Literal["pld", "rdp"]
History = tuple[tuple[float, float, int], ...]
INTERVAL = 1e-4
WIDEST = 1e-2
POINTS = 2e6
TAIL = 1e-15


def _library(name: str) -> Any:
    with need("dp_accounting", extra="privacy", part="dp-accounting's curves"):
        return importlib.import_module(f"dp_accounting{name}")


def _compose(accountant: Any, history: History) -> Any:
    event = _library(".dp_event")
    for sigma, q, steps in history:
        step = event.PoissonSampledDpEvent(q, event.GaussianDpEvent(sigma))
        accountant.compose(event.SelfComposedDpEvent(step, steps))
    return accountant


@contextmanager
def _quiet() -> Iterator[None]:
    """Without a line for every Renyi order that did not converge: others do, and any order proves."""
    log = logging.getLogger("absl")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)


@dataclass(frozen=True)
class Account:
    """An accountant that has seen the history, and what a reader of its values has to know."""

    accountant: Any
    note: str

    def epsilon(self, delta: float) -> float:
        """Its epsilon, never negative."""
        return max(0.0, float(self.accountant.get_epsilon(delta)))

    def delta(self, eps: float) -> float:
        """Its delta, at most 1."""
        return min(1.0, max(0.0, float(self.accountant.get_delta(eps))))


@functools.lru_cache(maxsize=64)
def account(history: History, method: Method, interval: float = INTERVAL) -> Account:
    """The history composed by dp-accounting; every sigma > 0, every q in (0, 1].

    Raises
    ------
    MissingExtraError
        If dp-accounting is not installed.
    """
    with _quiet():
        rdp = _compose(_library(".rdp.rdp_privacy_accountant").RdpAccountant(), history)
    if method == "rdp":
        return Account(rdp, "")
    span = 2 * float(rdp.get_epsilon(TAIL))
    for sigma, _, _ in history:
        span = max(span, 1 / sigma**2 + 20 / sigma)
    needed = max(interval, span / POINTS)
    if needed > WIDEST or not math.isfinite(span):
        note = "Renyi accounting: the privacy loss is too wide for a PLD"
        return Account(rdp, note)
    note = "" if needed == interval else f"PLD on a grid of {needed:.1e} to bound its memory"
    pld = _library(".pld.pld_privacy_accountant").PLDAccountant(
        value_discretization_interval=needed
    )
    return Account(_compose(pld, history), note)
