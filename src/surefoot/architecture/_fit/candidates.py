"""What fits leave behind: networks with their validation loss and origin, and the front of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from surefoot.architecture._fit.network import Network


@dataclass(frozen=True, eq=False)
class Candidate:
    """A network in the race.

    Attributes
    ----------
    network
        On standardised rows.
    val_loss
        Mean validation loss.
    source
        "constant", "linear", "dense", "direct" or "autoencoder".
    alpha
        The weight decay it was fitted with.
    parent
        What it was pruned from.
    pruned
        Its parent with zeros, before slicing; None where nothing was pruned.
    """

    network: Network
    val_loss: float
    source: str
    alpha: float
    parent: Candidate | None = None
    pruned: Network | None = None

    def lineage(self) -> list[Candidate]:
        """From the one that was fitted whole down to this one."""
        found, each = list[Candidate](), self
        while True:
            found.append(each)
            if each.parent is None:
                return found[::-1]
            each = each.parent


def nonzero(network: Network, regression: bool) -> int:
    """Entries that are not zero once the standardisation is folded in.

    The means of the columns then are in the first bias, of the targets in the last: those are never zero.

    Parameters
    ----------
    network
        On standardised rows.
    regression
        Whether targets were standardised.
    """
    entries = [*network.weights, *network.biases]
    count = sum(int(np.count_nonzero(p)) for p in entries)
    first = network.biases[0]
    if network.weights[0].size:
        count += int((first == 0).sum())
    if regression and (network.depth or not network.weights[0].size):
        count += int((network.biases[-1] == 0).sum())
    return count


def front(candidates: Iterable[Candidate], regression: bool) -> list[Candidate]:
    """Those that no other beats in entries and validation loss, smallest first; ties go to fewer stored ones.

    Parameters
    ----------
    candidates
        All there are.
    regression
        As in `nonzero`.
    """
    ranked = sorted(
        (c for c in candidates if np.isfinite(c.val_loss)),
        key=lambda c: (nonzero(c.network, regression), c.network.n_params, c.val_loss),
    )
    found: list[Candidate] = []
    best = np.inf
    last = -1
    for c in ranked:
        size = nonzero(c.network, regression)
        if c.val_loss < best:
            if size == last:
                found.pop()
            found.append(c)
            best, last = c.val_loss, size
    return found
