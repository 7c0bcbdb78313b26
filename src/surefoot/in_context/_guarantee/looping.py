"""G6, G7: what more loops at test time do."""

from __future__ import annotations

import math
import warnings

import numpy as np

from surefoot.guarantee import Assumption, Guarantee
from surefoot.in_context._guarantee import conditions
from surefoot.in_context._guarantee.reading import HERE, Curve, seeds_of
from surefoot.in_context.bounds import (
    diverging_bound,
)
from surefoot.in_context.population import LoopsCapWarning, population_loss, safe_loops
from surefoot.in_context.wishart import MOST
from surefoot.record import Record

CONTRACTS, MEAN, DIVERGES = (
    "G6 every prompt contracts",
    "G6 mean over loops",
    "G7 diverging prompts",
)


def prompts_contract() -> Guarantee:
    """G6: |w* - w_L'| <= rho^L' |w*| in the norm of A^-1, rho = max |1 - eig(A^1/2 Sh A^1/2)|, of each."""

    def assumptions(record: Record) -> tuple[Assumption, ...]:
        return (
            conditions.noiseless(record), conditions.tied(record), conditions.no_bias(record),
            conditions.symmetric(record), conditions.definite(record),
        )  # fmt: skip

    def size(record: Record) -> Curve:
        # The norm of A^-1 amplifies a rounding of w by at most sqrt(cond A), at each loop.
        curves = record.curves("contraction")
        worst = conditions.constant(record, "condition", [int(s) for s in curves.seeds])
        return np.asarray(np.sqrt(np.nan_to_num(worst, nan=1.0)) * (1 + curves.steps))

    return Guarantee(
        name=CONTRACTS,
        statement="|w* - w_L'|_(A^-1) <= rho^L' |w*|_(A^-1): 1 + largest excess of all prompts <= 1",
        latex=r"\|w_* - w_{L'}\|_{A^{-1}} \le \rho^{L'} \|w_*\|_{A^{-1}}",
        source=HERE, quantity="contraction", axis="largest excess of all prompts, plus 1",
        sense="upper", holds_in="every run",
        bound=lambda record: 1.0, assumptions=assumptions, size=size,
    )  # fmt: skip


def mean_over_loops(slack: float = 0.25) -> Guarantee:
    """G6: the mean loss of L' loops is E tr (I - bS)^{2L'} at A = b S^-1, and so at most that.

    Compared up to `safe_loops`, where the mean is least: beyond, it is carried by prompts so rare that
    samples lie far below it, and a claim of a hundredth of it would pass as well.

    Parameters
    ----------
    slack
        Relative tolerance: the claim is an equality, which no mean is ever strictly below.
    """

    def bound(record: Record) -> Curve:
        curves = record.curves("loops_loss")
        seeds = [int(s) for s in curves.seeds]
        steps = conditions.constant(record, "step", seeds)[:, 0]
        rows = np.full(curves.values.shape, math.inf)
        for i, size in enumerate(conditions.sizes(record, seeds)):
            if size is None or math.isnan(steps[i]):
                continue
            last = _least_at(size[0], size[1], float(steps[i]))
            for j, loops in enumerate(curves.steps):
                if loops <= last:
                    rows[i, j] = population_loss(
                        size[0], size[1], int(loops), float(steps[i])
                    ).value
        return np.asarray(np.maximum(rows, 1e-300))

    def assumptions(record: Record) -> tuple[Assumption, ...]:
        scalar = conditions.column(
            record, "off_scalar", "A = b S^-1", "|S^1/2 A S^1/2 - b I| <= 1e-6 of its norm",
            lambda v: v <= 1e-6,
        )  # fmt: skip
        return (
            *conditions.known_sizes(record), conditions.law(record), conditions.noiseless(record),
            conditions.tied(record), conditions.no_bias(record), scalar,
        )  # fmt: skip

    return Guarantee(
        name=MEAN, statement="E (TF_L' - w*'x_q)^2 = E tr (I - b S)^(2L'), "
        f"judged from above with {slack:.0%} of slack up to the L' where it is least",
        latex=r"E\,(TF_{L'} - w_*^\top x_q)^2 = E\,\mathrm{tr}\,(I - b S)^{2L'}",
        source=HERE, quantity="loops_loss", axis="squared error of the prediction",
        sense="upper", holds_in="expectation", tolerance=slack,
        bound=bound, assumptions=assumptions,
    )  # fmt: skip


def _least_at(d: int, n: int, step: float) -> int:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LoopsCapWarning)
        return safe_loops(d, n, step, MOST // 2)


def diverging_prompts() -> Guarantee:
    """G7: the share of prompts of covariance S' on which looping diverges is at most exp(-n t^2 / 2)."""

    def bound(record: Record) -> Curve:
        seeds = seeds_of(record, "diverging")
        largest = conditions.constant(record, "largest", seeds)[:, 0]
        return np.array(
            [
                [1.0 if s is None or not v > 0 else max(diverging_bound(s[0], s[1], v), 1e-300)]
                for s, v in zip(conditions.sizes(record, seeds, ("d", "n")), largest, strict=True)
            ]
        )

    def assumptions(record: Record) -> tuple[Assumption, ...]:
        return (
            *conditions.known_sizes(record)[:2], conditions.law(record),
            conditions.symmetric(record), conditions.definite(record),
        )  # fmt: skip

    return Guarantee(
        name=DIVERGES,
        statement="P(eig(A^1/2 Sh A^1/2) >= 2) <= exp(-n t^2/2), "
        "t = sqrt(2/lambda_max(A^1/2 S' A^1/2)) - 1 - sqrt(d/n)",
        latex=r"P(\lambda_{\max}(A^{1/2} \hat S A^{1/2}) \ge 2) \le e^{-n t^2/2}",
        source=f"Davidson and Szarek 2001, Theorem II.13; {HERE}",
        quantity="diverging", axis="share of prompts that diverge",
        sense="upper",
        holds_in="expectation", value_range=(0.0, 1.0), trivial=1.0, bound=bound, assumptions=assumptions,
    )  # fmt: skip
