"""A record's curves against a promised one: statistics for an expectation, none for every run."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from surefoot._verdict import evidence
from surefoot._verdict.rounding import ROUNDINGS, eps_of, forgiven
from surefoot.guarantee import Guarantee, Sense, Verdict
from surefoot.record import Curves, Record


@dataclass(frozen=True)
class Finding:
    """What the comparison found; `checked` and `worst` are indices into the record's steps.

    `final` and `tightness` are read so that at most 1 is within the promise, `ratio` is always measured
    over promised.
    """

    verdict: Verdict
    reason: str
    final: float
    tightness: float
    checked: Int[np.ndarray, " checked"]
    ratio: Float[np.ndarray, " checked"]
    low: Float[np.ndarray, " checked"]
    high: Float[np.ndarray, " checked"]
    worst: int
    more_seeds: int | None = None
    notes: tuple[str, ...] = ()
    caveats: tuple[str, ...] = ()
    """What a reader of this verdict has to know; of no other one."""


def on_steps(
    raw: Any, what: str, guarantee: Guarantee, curves: Curves
) -> Float[np.ndarray, "seeds steps"]:
    """A `Curve` that a guarantee computed, one row a seed; `what` names it in the error."""
    if raw is None:
        raise TypeError(f"the {what} of {guarantee.name!r} is None; is a return missing?")
    try:
        curve = np.asarray(raw, dtype=np.float64)
    except (TypeError, ValueError):
        raise TypeError(f"the {what} of {guarantee.name!r} is no number, got {raw!r}") from None
    shape = curves.values.shape
    if np.isnan(curve).any():
        raise ValueError(f"the {what} of {guarantee.name!r} is NaN at some step")
    try:
        return np.broadcast_to(curve, shape)
    except ValueError:
        raise ValueError(
            f"the {what} of {guarantee.name!r} has shape {curve.shape}; the record's "
            f"{guarantee.quantity!r} has {shape[0]} seeds and {shape[1]} steps"
        ) from None


def compare(
    record: Record,
    curves: Curves,
    bound: Float[np.ndarray, "seeds steps"],
    guarantee: Guarantee,
    confidence: float,
    steps: int | None,
    look: int | None,
) -> Finding:
    """The verdict of the numbers alone, before assumptions and triviality are looked at."""
    if guarantee.holds_in == "every run":
        return _every_run(record, curves, bound, guarantee, steps)
    return _expectation(record, curves, bound, guarantee, confidence, steps, look)


def _top(
    record: Record, guarantee: Guarantee, curves: Curves
) -> Float[np.ndarray, "seeds steps"] | None:
    """The largest value that the theorem leaves to any run; None where it is infinite somewhere."""
    found = guarantee.value_range
    if found is None:
        return None
    top = on_steps(found(record) if callable(found) else found[1], "value_range", guarantee, curves)
    if (top < 0).any():
        raise ValueError(f"the value_range of {guarantee.name!r} ends below 0")
    return top if np.isfinite(top).all() else None


def _size(record: Record, guarantee: Guarantee, curves: Curves) -> Float[np.ndarray, "seeds steps"]:
    raw = guarantee.size(record) if callable(guarantee.size) else guarantee.size
    return on_steps(raw, "size", guarantee, curves)


def _expectation(
    record: Record,
    curves: Curves,
    bound: Float[np.ndarray, "seeds steps"],
    guarantee: Guarantee,
    confidence: float,
    steps: int | None,
    look: int | None,
) -> Finding:
    most = evidence.MAX_CHECKED_STEPS if steps is None else steps
    at = evidence.checked_steps(curves.steps.astype(float), most)
    if (bound[:, at] <= 0).any():
        raise ValueError(
            f"the bound of {guarantee.name!r} must be positive at every checked step, as its claim "
            "is about an expectation"
        )
    top = _top(record, guarantee, curves)
    eps = eps_of(record, guarantee.quantity, guarantee.of)
    rounding = ROUNDINGS * eps
    size = _size(record, guarantee, curves)[:, at]
    slack = forgiven(eps, curves.values[:, at], bound[:, at], size)
    below = bound[:, at] <= slack
    drowned = (below & (np.abs(curves.values[:, at]) <= bound[:, at] + slack)).all(axis=0)
    empty = np.isinf(bound[:, at]).all(axis=0)
    left = ~(drowned | empty)
    if left.any():
        at, slack, size = at[left], slack[:, left], size[:, left]
    y, b = curves.values[:, at], bound[:, at]
    y = np.where((y < 0) & (y >= -slack), 0.0, y)
    with np.errstate(invalid="ignore", over="ignore"):
        # A bound far below what its quantity was computed from would be compared with rounding.
        if guarantee.sense == "upper":
            y = np.minimum(y, np.maximum(b, y - slack))
        elif guarantee.sense == "lower":
            y = np.maximum(y, np.minimum(b, y + slack))
        x = y / b
    found = evidence.judge(
        x,
        sense=guarantee.sense,
        confidence=confidence,
        tolerance=max(guarantee.tolerance, rounding),
        top=None if top is None else (top[:, at] + forgiven(eps, top[:, at], b, size)) / b,
        law=guarantee.law,
        look=look,
    )
    where = []
    if found.open_step is not None:
        where.append(f"step {curves.steps[at[found.open_step]]}")
    if found.carrier is not None:
        where.append(f"seed {curves.seeds[found.carrier]}")
    reason = found.reason + (f" ({', '.join(where)})" if where else "")
    notes: list[str] = []
    if left.any() and drowned.any():
        notes.append(
            f"{int(drowned.sum())} steps at which both sides drown in rounding were left out"
        )
    if left.any() and empty.any():
        notes.append(f"{int(empty.sum())} steps at which the bound is infinite were left out")
    if look is not None:
        notes.append(f"this was look {look} at a growing number of seeds")
    if (y < 0).any():
        notes.append(
            f"{guarantee.quantity} is below zero at some step: of such a quantity no bets are fair"
        )
    with np.errstate(divide="ignore"):
        within = 1 / found.mean if guarantee.sense == "lower" else found.mean
    final, tightness, worst = _headline(within, guarantee)
    return Finding(
        found.verdict, reason, final, tightness, at, found.mean, found.low, found.high,
        int(at[worst]), found.more_seeds, tuple(notes), found.notes,
    )  # fmt: skip


def _every_run(
    record: Record,
    curves: Curves,
    bound: Float[np.ndarray, "seeds steps"],
    guarantee: Guarantee,
    steps: int | None,
) -> Finding:
    total = len(curves.steps)
    at = (
        np.arange(total)
        if steps is None
        else evidence.checked_steps(curves.steps.astype(float), steps)
    )
    y, b = curves.values[:, at], bound[:, at]
    size = _size(record, guarantee, curves)[:, at]
    eps = eps_of(record, guarantee.quantity, guarantee.of)
    relative = guarantee.tolerance * np.where(np.isfinite(b), np.abs(b), 0.0)
    # A bound of infinity promises nothing or everything: no tolerance is relative to it.
    allowed = np.maximum(relative, forgiven(eps, y, b, size)) + guarantee.atol
    with np.errstate(invalid="ignore", over="ignore"):
        # Infinity against infinity is NaN, which exceeds nothing.
        excess = {"upper": y - b, "lower": b - y, "equal": np.abs(y - b)}[guarantee.sense]
        violated = excess > allowed
    lower = guarantee.sense == "lower"
    # What rounding alone forgives is no ratio: 1e-16 over a bound of 1e-114.
    with np.errstate(invalid="ignore", over="ignore"):
        rounding = ~violated & (excess > guarantee.tolerance * np.abs(b))
    ratio = np.where(rounding, 1.0, _ratio(y, b))
    within = np.where(rounding, 1.0, _ratio(b, y)) if lower else ratio
    by_step = _furthest(ratio, guarantee.sense)
    sides = _furthest(within, "upper" if lower else guarantee.sense)
    final, tightness, worst = _headline(sides, guarantee)
    # Without statistics all steps matter, but a certificate is read: it lists at most 18 of them.
    shown = evidence.checked_steps(curves.steps[at].astype(float))
    shown = np.union1d(shown, [worst])
    runs = "1 run" if len(curves.seeds) == 1 else f"{len(curves.seeds)} runs"
    where = "1 step" if len(at) == 1 else f"{len(at)} steps"
    notes = (f"{runs} compared at {where}, without statistics",)
    verdict, reason = Verdict.KEPT, "within the bound in every run at every checked step"
    if np.isnan(y).any():
        seed, step = np.argwhere(np.isnan(y))[0]
        verdict = Verdict.UNDECIDED
        reason = (
            f"{guarantee.quantity} is NaN at step {curves.steps[at[step]]} "
            f"of seed {curves.seeds[seed]}"
        )
    if violated.any():
        seed, step = np.argwhere(violated)[0]
        verdict, shown = Verdict.BROKEN, np.union1d(shown, [step])
        told, limit = _apart(y[seed, step], b[seed, step])
        reason = (
            f"seed {curves.seeds[seed]} has {guarantee.quantity} = {told} at step "
            f"{curves.steps[at[step]]} where the bound is {limit}"
            f" ({int(violated.sum())} of {violated.size} comparisons fail)"
        )
    return Finding(
        verdict, reason, final, tightness, at[shown], by_step[shown], by_step[shown],
        by_step[shown], int(at[worst]), None, notes,
    )  # fmt: skip


def _apart(a: float, b: float) -> tuple[str, str]:
    """Two numbers with as many digits as it takes to tell them apart."""
    for digits in (6, 9, 12, 17):
        pair = f"{a:.{digits}g}", f"{b:.{digits}g}"
        if pair[0] != pair[1]:
            break
    return pair


def _ratio(y: Float[np.ndarray, "*s"], b: Float[np.ndarray, "*s"]) -> Float[np.ndarray, "*s"]:
    """Measured over promised, in the order of the values: y <= b exactly where the ratio is <= 1."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        positive = y / b
        # Of two negative numbers the smaller one is the larger in size: -3 <= -2 is 2/3, not 3/2.
        negative = np.where(y < 0, b / y, np.inf)
        zero = np.where(y == 0, 1.0, np.copysign(np.inf, y))
    ratio = np.where(b > 0, positive, np.where(b < 0, negative, zero))
    return np.where(np.isnan(y) | np.isnan(b), np.nan, np.where(y == b, 1.0, ratio))


def _furthest(ratio: Float[np.ndarray, "seeds steps"], sense: Sense) -> Float[np.ndarray, " steps"]:
    """Of each step the seed that is furthest on the wrong side, or from 1 where both sides are wrong."""
    if sense == "equal":
        # Where every seed is NaN there is none that is furthest.
        distance = np.where(np.isnan(ratio), np.inf, np.abs(ratio - 1))
        return np.asarray(np.take_along_axis(ratio, distance.argmax(axis=0)[None], axis=0)[0])
    return np.asarray(ratio.min(axis=0) if sense == "lower" else ratio.max(axis=0))


def _headline(
    within: Float[np.ndarray, " steps"], guarantee: Guarantee
) -> tuple[float, float, int]:
    """The ratio at the end, the worst one after the first step, and where that is.

    At the first step both sides are often the same number, so it counts only where it alone is wrong.
    """
    if not len(within) or np.isnan(within).all():
        return math.nan, math.nan, 0
    distance = np.abs(within - 1) if guarantee.sense == "equal" else within - 1
    distance = np.where(np.isnan(distance), -np.inf, distance)
    later = distance[1:].max() if len(distance) > 1 else -np.inf
    if distance[0] > max(later, guarantee.tolerance) or later == -np.inf:
        worst = 0
    else:
        worst = 1 + int(distance[1:].argmax())
    return float(within[-1]), float(within[worst]), worst
