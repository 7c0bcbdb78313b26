"""G3, G4: gradient dominance, and the time of gradient flow that follows from it."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Bool, Float

from surefoot.guarantee import Assumption, Guarantee, assume_fact
from surefoot.in_context._guarantee import conditions
from surefoot.in_context._guarantee.reading import HERE, PAPER, SCORES, Curve, column_at
from surefoot.in_context.bounds import (
    DOMINANCE,
    flow_time,
    scalar_dominance_bound,
)
from surefoot.in_context.population import optimal_step, population_loss
from surefoot.in_context.wishart import MOST
from surefoot.record import Record

DOMINATED, ON_PATH = "G3 gradient dominance", "G3 gradient dominance on b I"
TIME = "G4 gradient-flow time"
ABOVE_LEAST = 2.0
"""Gradient dominance is looked at where the loss is above this multiple of the least one."""
ASYMMETRY = 0.1
"""Up to which |A - A'| / |A| gradient dominance is looked at: Adam leaves no A symmetric."""


def gradient_dominance(floor: float | None = None) -> Guarantee:
    """G3: |grad_A L|^2 >= L^{(2L-1)/L} / 16 for symmetric A while the loss is above a floor; S = I.

    The form of the theorem's floor is not known here, and A is symmetric only nearly: a heuristic.

    Parameters
    ----------
    floor
        The loss down to which it is looked at; None: twice the least loss.
    """

    def down_to(record: Record, seeds: list[int]) -> Float[np.ndarray, "seeds 1"]:
        if floor is not None:
            return np.full((len(seeds), 1), float(floor))
        return ABOVE_LEAST * conditions.constant(record, "least_loss", seeds)

    def looked_at(record: Record) -> Bool[np.ndarray, "seeds steps"]:
        curves = record.curves("dominance_ratio")
        seeds = [int(s) for s in curves.seeds]
        loss = column_at(record, "loss", curves.steps, seeds)
        skew = column_at(record, "asymmetry", curves.steps, seeds)
        return np.asarray((loss > down_to(record, seeds)) & (skew <= ASYMMETRY))

    def bound(record: Record) -> Curve:
        curves = record.curves("dominance_ratio")
        spread = np.zeros_like(curves.values)
        if "dominance_stderr" in record:
            spread = column_at(
                record, "dominance_stderr", curves.steps, [int(s) for s in curves.seeds]
            )
        # Where noise alone decides on which side of 1/16 the estimate lies, nothing is compared.
        decided = np.abs(curves.values - DOMINANCE) >= SCORES * spread
        return np.where(looked_at(record) & decided, DOMINANCE, 0.0)

    def assumptions(record: Record) -> tuple[Assumption, ...]:
        share = None
        if "dominance_ratio" in record and not np.isnan(down_to(record, record.seeds)).any():
            share = float(looked_at(record).mean())
        seen = Assumption(
            "symmetric A above the floor",
            f"at some checkpoint |A - A'| <= {ASYMMETRY:g} |A| and loss > "
            + (f"{ABOVE_LEAST:g} x the least" if floor is None else f"{floor:g}"),
            share, None if share is None else share > 0,
            "share of the checkpoints where it holds, and nothing is compared at the others",
        )  # fmt: skip
        return (
            conditions.law(record), conditions.noiseless(record), conditions.tied(record),
            conditions.isotropic(record), seen,
        )  # fmt: skip

    return Guarantee(
        name=DOMINATED, statement="|grad L|^2 >= L^((2L-1)/L) / 16 where L > floor",
        latex=r"\|\nabla L\|_F^2 \ge \tfrac{1}{16} L^{(2L-1)/L}",
        source=f"{PAPER}, Theorem 3.4, as quoted by notes; the floor is ours",
        quantity="dominance_ratio", sense="lower", holds_in="every run", heuristic=True, bound=bound,
        assumptions=assumptions, trivial=0.0,
    )  # fmt: skip


def scalar_dominance() -> Guarantee:
    """G3 as it can be proved at finite n: at A = b I, 0 <= b <= b*, from the convexity of L in b."""

    def bound(record: Record) -> Curve:
        curves = record.curves("dominance_ratio")
        seeds = [int(s) for s in curves.seeds]
        loss = column_at(record, "loss", curves.steps, seeds)
        rows = np.zeros_like(loss)
        for i, size in enumerate(conditions.sizes(record, seeds)):
            if size is None or 2 * size[2] > MOST:
                continue
            d, n, loops = size
            best = optimal_step(d, n, loops)
            least = population_loss(d, n, loops, best).value
            rows[i] = [
                0.0
                if math.isnan(v) or v < least
                else scalar_dominance_bound(v, least, d, loops, best)
                for v in loss[i]
            ]
        return np.asarray(rows)

    def assumptions(record: Record) -> tuple[Assumption, ...]:
        path = assume_fact(
            record,
            "path",
            "multiples of the identity",
            "A = b I, 0 <= b <= b*",
            lambda v: v == "b I",
        )
        return (
            *conditions.known_sizes(record), conditions.law(record), conditions.noiseless(record),
            conditions.tied(record), conditions.isotropic(record), path,
        )  # fmt: skip

    return Guarantee(
        name=ON_PATH, statement="|grad L|^2 / L^((2L-1)/L) >= (1 - L_min/L)^2 L^(1/L) / (d b*^2)",
        latex=r"\|\nabla L\|_F^2 / L^{(2L-1)/L} \ge (1 - L_{\min}/L)^2 L^{1/L} / (d\,b_*^2)",
        source=HERE, quantity="dominance_ratio", sense="lower", holds_in="every run", bound=bound,
        assumptions=assumptions, trivial=0.0,
    )  # fmt: skip


def flow_time_bound() -> Guarantee:
    """G4: the time of gradient flow to each loss, where gradient dominance with 1/16 held on the way."""

    def bound(record: Record) -> Curve:
        curves = record.curves("flow_time")
        seeds = [int(s) for s in curves.seeds]
        loss = column_at(record, "loss", curves.steps, seeds)
        ratio = column_at(record, "dominance_ratio", curves.steps, seeds)
        rows = np.full_like(loss, math.inf)
        for i, size in enumerate(conditions.sizes(record, seeds)):
            if size is None:
                continue
            held = np.nan_to_num(np.minimum.accumulate(ratio[i]), nan=0.0) >= DOMINANCE
            for j in np.flatnonzero(held & (loss[i] > 0)):
                rows[i, j] = flow_time(loss[i, j], size[2], loss[i, 0])
        return np.asarray(rows)

    def assumptions(record: Record) -> tuple[Assumption, ...]:
        return (
            *conditions.known_sizes(record), conditions.method(record, "gradient flow"),
            conditions.law(record), conditions.noiseless(record), conditions.tied(record),
            conditions.isotropic(record), conditions.start(record),
        )  # fmt: skip

    return Guarantee(
        name=TIME,
        statement="T(xi) <= 16L/(L-1) xi^(-(L-1)/L) (1 - (xi/L_0)^((L-1)/L)), 16 ln(L_0/xi) if L=1",
        latex=r"T(\xi) \le \tfrac{16 L}{L-1}\,\xi^{-(L-1)/L}\left(1 - (\xi/L_0)^{(L-1)/L}\right)",
        source=f"integrated from gradient dominance, {HERE}; Theorem 3.3 as quoted has other exponents",
        quantity="flow_time", axis="time of the flow",
        sense="upper", holds_in="every run", bound=bound, assumptions=assumptions,
    )  # fmt: skip
