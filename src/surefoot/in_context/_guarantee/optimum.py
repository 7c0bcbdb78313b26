"""G1, G2, G5: where training ends, beside the theorem and the exact optimum."""

from __future__ import annotations

import math

import numpy as np

from surefoot.guarantee import Assumption, Guarantee
from surefoot.in_context._guarantee import conditions
from surefoot.in_context._guarantee.reading import HERE, PAPER, SCORES, Curve, seeds_of
from surefoot.in_context.bounds import (
    minimiser_bound,
)
from surefoot.record import Record

MINIMISER, BIAS, OPTIMUM = "G1 minimiser near S^-1", "G2 cost of u", "G5 exact optimum"
NEAR = 0.01


def minimiser_near_inverse() -> Guarantee:
    """G1: |S^{1/2} A S^{1/2} - I|_2 <= c at a global minimiser; c >= 1 at every size that fits a desk."""

    def bound(record: Record) -> Curve:
        seeds = seeds_of(record, "minimiser_distance")
        return np.array(
            [
                [math.inf if s is None else minimiser_bound(*s).c]
                for s in conditions.sizes(record, seeds)
            ]
        )

    def assumptions(record: Record) -> tuple[Assumption, ...]:
        reached = conditions.column(
            record, "loss_ratio", "a global minimiser", f"loss <= {1 + NEAR} x that of b* S^-1",
            lambda v: v <= 1 + NEAR,
        )  # fmt: skip
        return (
            *conditions.known_sizes(record), conditions.law(record), conditions.noiseless(record),
            conditions.tied(record), reached,
        )  # fmt: skip

    return Guarantee(
        name=MINIMISER, statement="(1-c) S^-1 <= A <= (1+c) S^-1, c = 8 d^(1/2L) (8Ld/sqrt(n))^(1/2L)",
        latex=r"(1-c)\,S^{-1} \preceq A \preceq (1+c)\,S^{-1},\ c = 8\,(8 L d^2/\sqrt{n})^{1/2L}",
        source=f"{PAPER}, Theorem 3.2, as quoted by notes", quantity="minimiser_distance", sense="upper",
        holds_in="every run", bound=bound, assumptions=assumptions, trivial=1.0,
    )  # fmt: skip


def bias_cost() -> Guarantee:
    """G2: L(A, u) - L(A, 0) = u' E[(I-H)' S (I-H)] u for every A, so that u = 0 is best for every A.

    The quantity is how many standard errors drawn prompts are off that.
    """
    return Guarantee(
        name=BIAS, statement="L(A,u) - L(A,0) = u' E[(I-H)' S (I-H)] u, within 5 standard errors",
        latex=r"L(A,u) - L(A,0) = u^\top E[(I-H)^\top S (I-H)]\,u",
        source=HERE, quantity="bias_z", sense="equal", holds_in="every run", atol=SCORES,
        bound=lambda record: 0.0,
        assumptions=lambda record: (conditions.law(record),),
    )  # fmt: skip


def exact_optimum_reached(factor: float = 1 + NEAR) -> Guarantee:
    """G5: a trained model is within a factor of the exact optimum of scalar steps, on the same prompts.

    A heuristic: no theorem says that Adam gets there, and it does not always.

    Parameters
    ----------
    factor
        Of the loss.
    """
    return Guarantee(
        name=OPTIMUM, statement=f"L(A, u) <= {factor:g} L(b* S^-1) on the same prompts",
        latex=rf"L(A, u) \le {factor:g}\,L(b_* S^{{-1}})",
        source=f"exact optimum {HERE}; that training reaches it is observed",
        quantity="loss_ratio", sense="upper", holds_in="every run", heuristic=True,
        bound=lambda record: factor,
        assumptions=lambda record: (conditions.law(record), conditions.noiseless(record)),
    )  # fmt: skip
