"""What an audit is asked for, checked before anything is trained or counted."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, Literal, get_args

import numpy as np
from jaxtyping import Bool, Float

from surefoot._numerics.checks import check_choice, check_real
from surefoot.privacy._checks import real
from surefoot.privacy.audit.p_value import check_audit_delta, check_confidence, whole
from surefoot.privacy.audit.result import FAMILY, Claimed, check_claim, claim_of

Array = np.ndarray
Statistic = Literal[
    "one_run", "one_run_fdp", "one_run_last_iterate", "clopper", "gdp", "last_iterate"
]
FEWEST = 10
FOR_MANY_RUNS = {"clopper", "gdp", "last_iterate"}


def default_k(m: int) -> int:
    """Guesses on each side, for calibrated scores: 4 % of many canaries, 10 % of few."""
    return math.ceil((0.04 if m >= 2000 else 0.1) * m)


def check_scores(scores: Any, included: Any) -> tuple[Float[Array, " m"], Bool[Array, " m"]]:
    """Finite scores, one coin each, both sides present.

    Raises
    ------
    ValueError
        Naming what is wrong.
    """
    check_real("scores", scores)
    try:
        values: Array = np.asarray(scores, dtype=float)
    except (TypeError, ValueError):
        raise ValueError(f"scores must be one number a canary, got {scores!r}") from None
    check_real("included", included)
    coins: Array = np.asarray(included)
    if values.ndim != 1:
        raise ValueError(f"scores must be one number per canary, got shape {values.shape}")
    if not len(values):
        raise ValueError("scores must hold at least one, got none")
    if not np.isfinite(values).all():
        at = int(np.argmin(np.isfinite(values)))
        raise ValueError(f"scores must be finite, got {values[at]} at {at}")
    if coins.shape != values.shape or not set(np.unique(coins).tolist()) <= {0, 1}:
        raise ValueError(
            f"included must be {len(values)} booleans, got {coins.dtype} of shape {coins.shape}"
        )
    coins = coins.astype(bool)
    if len(values) < FEWEST:
        raise ValueError(f"scores must be of at least {FEWEST} canaries, got {len(values)}")
    if coins.all() or not coins.any():
        raise ValueError(
            f"included must hold both in and out, got all {bool(coins[0])}: "
            "each canary needs its own fair coin"
        )
    return values, coins


def _several(k: int | Sequence[int] | None, m: int) -> list[int]:
    given = default_k(m) if k is None else k
    ks = [given] if np.ndim(given) == 0 else list(given)  # type: ignore[arg-type]
    if not ks:
        raise ValueError("k must hold at least one number, got []")
    return [whole("k", each, 1, m // 2) for each in ks]


def rate_and_steps(claimed: Claimed | None) -> tuple[float, int]:
    """Of the claim: what the last-iterate family needs.

    Raises
    ------
    ValueError
        Without a claim, or if its sample rates differ.
    """
    claim = claim_of(claimed)
    if claim is None or np.ndim(claim[1]):
        raise ValueError(
            f"claimed must give one sample rate and the steps for the last-iterate family, got {claimed!r}"
        )
    return float(claim[1]), claim[2]


def check_request(
    method: Statistic | Sequence[Statistic],
    *,
    m: int,
    delta: float,
    k: int | Sequence[int] | None = None,
    threshold: float | None = None,
    confidence: float,
    claimed: Claimed | None,
) -> tuple[tuple[str, ...], list[int]]:
    """The statistics, and for one run the guesses on each side; all that can be refused before training.

    Raises
    ------
    ValueError
        If something is not as it must be, with its name and value.
    """
    if not isinstance(method, Iterable):
        raise ValueError(f"method must name at least one of {get_args(Statistic)}, got {method!r}")
    statistics: tuple[str, ...] = (method,) if isinstance(method, str) else tuple(method)
    if not statistics:
        raise ValueError(f"method must name at least one of {get_args(Statistic)}, got {method!r}")
    for each in statistics:
        check_choice("method", each, get_args(Statistic))
    if set(statistics) & FOR_MANY_RUNS and not set(statistics) <= FOR_MANY_RUNS:
        raise ValueError(f"method must be for one run or for many, got both in {statistics}")
    delta = check_audit_delta(delta)
    check_confidence(confidence)
    check_claim(claimed, delta)
    for each in statistics:
        if each in FAMILY and delta == 0:
            raise ValueError(f"delta must be positive for method {each!r}, got 0")
        if each in ("last_iterate", "one_run_last_iterate"):
            rate_and_steps(claimed)
    if set(statistics) <= FOR_MANY_RUNS:
        if k is not None:
            raise ValueError(f"k is for one run, got {k!r} with method {statistics}")
        if threshold is not None and not math.isfinite(real("threshold", threshold)):
            raise ValueError(f"threshold must be finite, got {threshold}")
        return statistics, []
    if threshold is not None:
        raise ValueError(f"threshold is for many runs, got {threshold!r} with method {statistics}")
    return statistics, _several(k, m)
