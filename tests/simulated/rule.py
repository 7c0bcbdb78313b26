"""The rule for a mean over many records at once: what `judge` says of each, with bets written out again.

Records are (seeds, steps, repetitions). `test_the_rule_at_once_is_judges` holds it against `judge`.
"""

import numpy as np

from surefoot._verdict import student
from surefoot.guarantee import Verdict

ALPHA = 1 - 0.99
SIDES = {"upper": (1,), "lower": (-1,), "equal": (1, -1)}
ROUNDING = 1e-9
MIN_SEEDS = 5
NEVER = 10**9


BETS = (0.05, 0.2, 0.5, 0.9)


def fortunes(gain):
    """The fortune after each seed, its stake spread evenly over the bets: as products, without logs."""
    found = np.zeros_like(gain)
    with np.errstate(over="ignore"):
        for bet in BETS:
            found += np.cumprod(1 + bet * gain, axis=0)
    return found / len(BETS)


def above(x, edge):
    """Fortunes of bets against "mean <= edge"; no bets at a step with values below 0."""
    fair = (x >= -student.AGREE).all(axis=0)
    return np.where(fair, fortunes(np.maximum(x, 0) / edge - 1), 0.0)


def below(x, edge, top):
    """Fortunes of bets against "mean >= edge"; `top` a number, or one a step."""
    most = np.asarray(top, dtype=float).reshape(-1, 1) / edge
    return fortunes((1 - np.minimum(x / edge, most)) / np.maximum(most - 1, 1e-12))


def over_steps(fortune):
    """The fortune whose stake is spread over the steps, after each seed: (seeds, repetitions)."""
    return fortune.mean(axis=1)


def first(fortune, level):
    """How many seeds there are when a fortune first is 1/level; `NEVER`. Nobody judges fewer than five."""
    there = fortune >= 1 / level
    return np.where(there.any(axis=0), np.maximum(there.argmax(axis=0) + 1, MIN_SEEDS), NEVER)


def at_the_bound(x, top):
    """How many seeds there are when records whose mean is 1 are first called BROKEN or KEPT, and of what.

    By bets alone, tolerance 0. What is promised on one side is refuted by the bets that keep the other.
    """
    up = above(x, 1.0)
    pooled, found = over_steps(up), {}
    found["BROKEN", "upper"] = first(pooled, ALPHA)
    found["BROKEN", "equal"] = first(pooled, ALPHA / 2)
    if np.isfinite(top):
        down = below(x, 1.0, top)
        pooled = over_steps(down)
        found["BROKEN", "lower"] = first(pooled, ALPHA)
        found["BROKEN", "equal, with a range"] = np.minimum(
            found["BROKEN", "equal"], first(pooled, ALPHA / 2)
        )
        found["KEPT", "upper"] = first(down, ALPHA).max(axis=0)
        found["KEPT", "lower"] = first(up, ALPHA).max(axis=0)
    return found


def broken_at(x, sense, top=None, tolerance=ROUNDING):
    """How many seeds there are when bets first call it BROKEN."""
    level = ALPHA / len(SIDES[sense])
    found = []
    for side in SIDES[sense]:
        edge = 1 + side * tolerance
        if side > 0:
            found.append(first(over_steps(above(x, edge)), level))
        elif top is not None:
            found.append(first(over_steps(below(x, edge, top)), level))
    return np.minimum.reduce(found or [np.full(x.shape[2], NEVER)])


def kept_at(x, sense, top, tolerance=ROUNDING):
    """How many seeds there are when bets first show every step within."""
    level = ALPHA / len(SIDES[sense])
    found = [
        first(below(x, 1 + tolerance, top) if side > 0 else above(x, 1 - tolerance), level)
        for side in SIDES[sense]
    ]
    return np.max(found, axis=(0, 1))


def exceeds(x, level, side, tolerance=ROUNDING):
    """Whether some mean lies beyond 1 by Student's limits."""
    found = np.zeros(x.shape[2], dtype=bool)
    for y, share in student.pooled(x):
        beyond = side * (student.limit(y, level * share, -side) - 1) > tolerance
        if side < 0:
            beyond &= student.skewness(y) <= 1
        found |= (beyond & ~student.agree(y)).any(axis=0)
    return found


def verdicts(x, sense="upper", *, tolerance=ROUNDING, top=None, law=None, look=None):
    """The verdict of each record, all of them finite and of five seeds or more."""
    sides = SIDES[sense]
    level = ALPHA / len(sides)
    fixed = level / (look * (look + 1)) if look else level
    mean, agree = x.mean(axis=0), student.agree(x)
    start = np.cumprod(agree, axis=0).astype(bool)
    limits = {side: student.limit(x, fixed, side) for side in sides}
    runs = x.shape[2]
    no = np.zeros(runs, dtype=bool)
    low = high = no
    if top is not None:
        limit = np.asarray(top, dtype=float).reshape(-1, 1)
        low = (x < -student.AGREE).any(axis=(0, 1))
        high = (x > limit * (1 + student.AGREE)).any(axis=(0, 1))
    broken = broken_at(x, sense, top, tolerance) <= len(x)
    beyond, within = no.copy(), np.ones(start.shape, dtype=bool)
    for side in sides:
        direct = side * (mean - 1) <= tolerance
        beyond |= (start & ~direct).any(axis=0) | exceeds(x, level, side, tolerance)
        if top is None:
            sure = np.where(start, direct, side * (limits[side] - 1) <= tolerance)
        else:
            edge = 1 + side * tolerance
            fortune = below(x, edge, top) if side > 0 else above(x, edge)
            sure = fortune.max(axis=0) >= 1 / level
            if side > 0:
                sure |= np.asarray(top, dtype=float).reshape(-1, 1) <= edge
            sure[0] |= start[0] & direct[0]
        within &= sure
    silent = (agree & ~start).any(axis=0) if top is None else no
    told = beyond if law == "light-tailed" and not look else no
    cases = [start.all(axis=0), low, high | broken | told, within.all(axis=0) & ~silent & ~beyond]
    words = [Verdict.UNDECIDED, Verdict.UNDECIDED, Verdict.BROKEN, Verdict.KEPT, Verdict.UNDECIDED]
    return np.array(words, dtype=object)[np.select(cases, [0, 1, 2, 3], 4)]
