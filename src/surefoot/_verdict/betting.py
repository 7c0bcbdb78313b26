"""Betting on ratios that are not negative: what may be said of a mean without knowing its law.

A gambler bets against "the mean is at most 1", seed after seed. Under the claim no bet gains in the mean,
so a fortune of 1/alpha has probability at most alpha, whenever one stops to look (Ville's inequality).
Nothing is asked of the law but x >= 0, and x <= c for bets against "the mean is at least 1".
Source: Waudby-Smith and Ramdas, arXiv 2010.09686, section 3.
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float
from scipy.special import logsumexp

BETS = np.array([0.05, 0.2, 0.5, 0.9])
# A range that ends at the bound itself leaves nothing to lose: bets are then large, not infinite.
LEAST_LOSS = 1e-12


def gains_above(x: Float[np.ndarray, "n steps"], edge: float) -> Float[np.ndarray, "bets n steps"]:
    """Log of each bet's factor against "E x <= edge", for x >= 0."""
    return np.asarray(np.log1p(BETS[:, None, None] * (x / edge - 1.0)))


def gains_below(
    x: Float[np.ndarray, "n steps"], edge: float, top: Float[np.ndarray, "n steps"]
) -> Float[np.ndarray, "bets n steps"]:
    """Log of each bet's factor against "E x >= edge", for 0 <= x <= top.

    A bet is scaled by 1 / (top - 1), the most that it can lose: no factor turns negative.
    """
    most = top / edge
    unit = (1.0 - np.minimum(x / edge, most)) / np.maximum(most - 1.0, LEAST_LOSS)
    return np.asarray(np.log1p(BETS[:, None, None] * unit))


def fortunes(gains: Float[np.ndarray, "bets n steps"]) -> Float[np.ndarray, "n steps"]:
    """Log of the fortune at each step after each seed, its stake spread evenly over the bets."""
    return np.asarray(logsumexp(np.cumsum(gains, axis=1), axis=0) - math.log(len(gains)))


def spread(fortune: Float[np.ndarray, "n steps"]) -> Float[np.ndarray, " n"]:
    """Log of the fortune whose stake is spread evenly over the steps: fair however these depend."""
    return np.asarray(logsumexp(fortune, axis=1) - math.log(fortune.shape[1]))


def seeds_needed(
    gains: Float[np.ndarray, "bets n steps"], level: float
) -> Float[np.ndarray, " steps"]:
    """How many seeds in all would make a fortune of 1/level if they go on as those so far; inf: none.

    At the growth of the best single bet, which then carries its share of the stake alone.
    """
    growth = np.maximum(gains.mean(axis=1).max(axis=0), -1e300)
    goal = math.log(len(gains) / level)
    with np.errstate(divide="ignore"):
        return np.asarray(np.where(growth > 0, goal / np.maximum(growth, 1e-300), np.inf))


def least_ratio(n: int, level: float) -> float:
    """What n nearly equal ratios have to exceed, for any test that is valid for all x >= 0."""
    return float(level ** (-1.0 / n))
