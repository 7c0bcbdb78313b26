"""Averages for servers that distrust some of their clients."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from jaxtyping import Shaped
from torch import Tensor

from surefoot._numerics.checks import check_number
from surefoot.federated.mean import State, check_replies, weighted_mean
from surefoot.federated.server_rule import ServerRule
from surefoot.record import Fact

MEDIAN, TRIMMED = "median", "trimmed:"
# More than any site has, and a sum of such weights is exact.
MAX_EXAMPLES = 1e9


def check_robust(how: str | None) -> int | None:
    """How many replies are left out at each end: None for the median and for the plain mean.

    Raises
    ------
    ValueError
        It is neither None, "median" nor "trimmed:K" with a whole K of at least 1.
    """
    if how is None or how == MEDIAN:
        return None
    if isinstance(how, str) and how.startswith(TRIMMED) and how.removeprefix(TRIMMED).isdecimal():
        count = int(how.removeprefix(TRIMMED))
        if count >= 1:
            return count
    raise ValueError(f"robust must be None, 'median' or 'trimmed:K' with K at least 1, got {how!r}")


def robust_mean(
    replies: Mapping[int, tuple[State, float]], how: str | None
) -> dict[str, Shaped[Tensor, "..."]]:
    """Coordinate-wise median or trimmed mean of {partition: (state, number of examples)}.

    "median" bears fewer than half of the replies being anything, "trimmed:K" K of them; both count every
    client once, whatever it says of its examples (arXiv 1803.01498, Algorithm 1). It is no mean: where the
    clients' data differ it is biased, and theorems on the exact mean do not hold. In float64 and back to
    each array's dtype; integers have the lower median, and booleans must be the same everywhere.

    Parameters
    ----------
    replies
        As in `weighted_mean`.
    how
        "median", "trimmed:K", or None for `weighted_mean`.

    Raises
    ------
    ValueError
        As `weighted_mean`; or "trimmed:K" of no more than 2 K replies.
    """
    trim = check_robust(how)
    if how is None:
        return weighted_mean(replies)
    order = check_replies(replies)
    if trim is not None and len(order) <= 2 * trim:
        raise ValueError(
            f"robust = {how!r} needs more than {2 * trim} replies, got {len(order)}; use a smaller K, or "
            "'median'"
        )
    found = {}
    for name, first in replies[order[0]][0].items():
        values = [replies[p][0][name] for p in order]
        if first.dtype == torch.bool:
            alone = {p: ({name: v}, 1.0) for p, v in zip(order, values, strict=True)}
            found[name] = weighted_mean(alone)[name]
        elif not first.is_floating_point():
            found[name] = torch.stack(values).sort(0).values[(len(order) - 1) // 2]
        else:
            ordered = torch.stack([value.double() for value in values]).sort(0).values
            kept = ordered if trim is None else ordered[trim : len(order) - trim]
            # Divided first, as a sum at the end of the range overflows.
            middle = _median(kept) if trim is None else (kept / len(kept)).sum(0)
            found[name] = middle.to(first.dtype)
    return found


def _median(ordered: Tensor) -> Tensor:
    half = len(ordered) // 2
    if len(ordered) % 2:
        return ordered[half]
    # Not half of their sum, which may overflow.
    return ordered[half - 1] / 2 + ordered[half] / 2


def facts_of_mean(rule: ServerRule, robust: str | None, uniform: bool = False) -> dict[str, Fact]:
    """What the server did with the replies: theorems on the mean read the rule's name.

    Parameters
    ----------
    rule
        What it does with the mean.
    robust
        As in `robust_mean`.
    uniform
        Whether every reply had weight 1.
    """
    if robust is None:
        return {"weighting": "uniform" if uniform else "examples", **rule.facts}
    kind = "median" if robust == MEDIAN else "trimmed_mean"
    return {**rule.facts, "weighting": robust, "server": kind}


class Declared:
    """Numbers of examples: no client may claim more than it first did, nor more than a cap.

    Parameters
    ----------
    most
        The cap.

    Attributes
    ----------
    first
        What each partition claimed first.

    Raises
    ------
    ValueError
        The cap is no positive number.
    """

    def __init__(self, most: float) -> None:
        self.most = check_number("max_examples", most, above=0, finite=False)
        self.first: dict[int, float] = {}

    def to_dict(self) -> dict[str, float]:
        """What was claimed first, in JSON's types."""
        return {str(k): v for k, v in self.first.items()}

    def check(self, partition: int, examples: float) -> float:
        """The number that a reply claims; what is claimed first is remembered.

        Raises
        ------
        ValueError
            It is no positive number, above the cap, or above what the partition claimed first.
        """
        if isinstance(examples, bool) or not isinstance(examples, int | float):
            raise ValueError(f"num-examples must be a positive number, got {examples!r}")
        if not 0 < examples < math.inf:
            raise ValueError(f"num-examples must be a positive number, got {examples}")
        if examples > self.most:
            raise ValueError(
                f"num-examples is {examples:g}, above the {self.most:g} that a client may have (max_examples)"
            )
        first = self.first.setdefault(partition, float(examples))
        if examples > first:
            raise ValueError(
                f"num-examples is {examples:g}, the partition first declared {first:g}: its weight would grow"
            )
        return float(examples)
