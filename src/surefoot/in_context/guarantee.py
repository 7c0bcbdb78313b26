"""G1 to G7: the theorems of arXiv 2410.08292 and what is derived here, as Guarantees on a record.

Written by `train_looped` (G1, G2, G3, G5), `gradient_flow` (G3, G4) and `loop_longer` (G6, G7). The paper's
text was not available: its statements are as a third party quotes them, which `source` says.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
from jaxtyping import Bool, Float

from surefoot.certificate import Certificate, certify, unmeasured
from surefoot.guarantee import Assumption, Guarantee, assume_fact
from surefoot.in_context._guarantee import conditions
from surefoot.in_context.bounds import (
    DOMINANCE,
    diverging_bound,
    flow_time,
    minimiser_bound,
    scalar_dominance_bound,
)
from surefoot.in_context.population import optimal_step, population_loss
from surefoot.in_context.wishart import MOST
from surefoot.record import Record

PAPER = "arXiv 2410.08292"
HERE = "derived in surefoot, for the setting of arXiv 2410.08292"
MINIMISER, BIAS, DOMINATED = "G1 minimiser near S^-1", "G2 cost of u", "G3 gradient dominance"
ON_PATH, TIME, OPTIMUM = "G3 gradient dominance on b I", "G4 gradient-flow time", "G5 exact optimum"
CONTRACTS, MEAN, DIVERGES = (
    "G6 every prompt contracts",
    "G6 mean over loops",
    "G7 diverging prompts",
)
SCORES = 5.0
"""Standard errors by which an estimate may be off."""
ABOVE_LEAST = 2.0
"""Gradient dominance is looked at where the loss is above this multiple of the least one."""
ASYMMETRY = 0.1
"""Up to which |A - A'| / |A| gradient dominance is looked at: Adam leaves no A symmetric."""
NEAR = 0.01
Curve = Float[np.ndarray, "seeds steps"]


def minimiser_near_inverse() -> Guarantee:
    """G1: |S^{1/2} A S^{1/2} - I|_2 <= c at a global minimiser; c >= 1 at every size that fits a desk."""

    def bound(record: Record) -> Curve:
        seeds = _seeds(record, "minimiser_distance")
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
        loss = _at(record, "loss", curves.steps, seeds)
        skew = _at(record, "asymmetry", curves.steps, seeds)
        return np.asarray((loss > down_to(record, seeds)) & (skew <= ASYMMETRY))

    def bound(record: Record) -> Curve:
        curves = record.curves("dominance_ratio")
        spread = np.zeros_like(curves.values)
        if "dominance_stderr" in record:
            spread = _at(record, "dominance_stderr", curves.steps, [int(s) for s in curves.seeds])
        # Where noise alone decides on which side of 1/16 the estimate lies, nothing is compared.
        decided = np.abs(curves.values - DOMINANCE) >= SCORES * spread
        return np.where(looked_at(record) & decided, DOMINANCE, 0.0)

    def assumptions(record: Record) -> tuple[Assumption, ...]:
        share = None
        if "dominance_ratio" in record and not np.isnan(down_to(record, record.seeds)).any():
            share = float(looked_at(record).mean())
        seen = Assumption(
            "symmetric A above the floor",
            f"|A - A'| <= {ASYMMETRY:g} |A| and loss > "
            + (f"{ABOVE_LEAST:g} x the least" if floor is None else f"{floor:g}"),
            share, None if share is None else share > 0, "share of the checkpoints",
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
        loss = _at(record, "loss", curves.steps, seeds)
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
        return rows

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
        loss = _at(record, "loss", curves.steps, seeds)
        ratio = _at(record, "dominance_ratio", curves.steps, seeds)
        rows = np.full_like(loss, math.inf)
        for i, size in enumerate(conditions.sizes(record, seeds)):
            if size is None:
                continue
            held = np.nan_to_num(np.minimum.accumulate(ratio[i]), nan=0.0) >= DOMINANCE
            for j in np.flatnonzero(held & (loss[i] > 0)):
                rows[i, j] = flow_time(loss[i, j], size[2], loss[i, 0])
        return rows

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
        quantity="flow_time", sense="upper", holds_in="every run", bound=bound, assumptions=assumptions,
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
        source=HERE, quantity="contraction", sense="upper", holds_in="every run",
        bound=lambda record: 1.0, assumptions=assumptions, size=size,
    )  # fmt: skip


def mean_over_loops(slack: float = 0.25) -> Guarantee:
    """G6: the mean loss of L' loops is E tr (I - bS)^{2L'} at A = b S^-1, and so at most that.

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
            for j, loops in enumerate(curves.steps):
                if 2 * loops <= MOST:
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
        name=MEAN, statement="E (TF_L' - w*'x_q)^2 <= E tr (I - b S)^(2L'), exact",
        latex=r"E\,(TF_{L'} - w_*^\top x_q)^2 = E\,\mathrm{tr}\,(I - b S)^{2L'}",
        source=HERE, quantity="loops_loss", sense="upper", holds_in="expectation", tolerance=slack,
        bound=bound, assumptions=assumptions,
    )  # fmt: skip


def diverging_prompts() -> Guarantee:
    """G7: the share of prompts of covariance S' on which looping diverges is at most exp(-n t^2 / 2)."""

    def bound(record: Record) -> Curve:
        seeds = _seeds(record, "diverging")
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
        source=f"Davidson and Szarek 2001, Theorem II.13; {HERE}", quantity="diverging", sense="upper",
        holds_in="expectation", value_range=(0.0, 1.0), trivial=1.0, bound=bound, assumptions=assumptions,
    )  # fmt: skip


def training_certificates(record: Record) -> list[Certificate]:
    """G1 to G5 on what `train_looped` recorded, with the exact optimum beside the promised distance."""
    found = [
        _judged(record, minimiser_near_inverse(), "train with tied layers"),
        _judged(record, bias_cost(), "train with train_u=True"),
        _judged(record, gradient_dominance(), "train with tied layers"),
        _judged(record, flow_time_bound(), "gradient_flow(d, n, loops) runs the flow itself"),
        _judged(record, exact_optimum_reached(), "the exact optimum is known up to 20 loops"),
    ]
    return [_beside(record, found[0]), *found[1:2], _crossing(record, found[2]), *found[3:]]


def flow_certificates(record: Record) -> list[Certificate]:
    """G3 and G4 on what `gradient_flow` recorded."""
    claims = (gradient_dominance(), scalar_dominance(), flow_time_bound())
    first, *rest = [_judged(record, c, "run gradient_flow") for c in claims]
    return [_crossing(record, first), *rest]


def looping_certificates(record: Record) -> list[Certificate]:
    """G6 and G7 on what `loop_longer` recorded."""
    claims = (prompts_contract(), mean_over_loops(), diverging_prompts())
    return [_judged(record, c, "A must be positive definite to be measured") for c in claims]


def _judged(record: Record, claim: Guarantee, todo: str) -> Certificate:
    if claim.quantity in record:
        return certify(record, claim)
    return unmeasured(record, claim, todo)


def _beside(record: Record, found: Certificate) -> Certificate:
    """The promised distance is mostly vacuous: the exact one stands beside it."""
    exact = conditions.constant(record, "best_step", record.seeds)
    size = next(iter(conditions.sizes(record, record.seeds)), None)
    if size is None or np.isnan(exact).any():
        return found
    distance, promised = abs(float(exact[0, 0]) - 1), minimiser_bound(*size)
    said = (
        f"promised distance c = {promised.c:.4g}{' (vacuous)' if promised.vacuous else ''}; "
        f"exact |b* - 1| = {distance:.4g}"
    )
    return dataclasses.replace(
        found,
        notes=(*found.notes, said),
        details={"c": promised.c, "vacuous": promised.vacuous, "exact_distance": distance},
    )


def _crossing(record: Record, found: Certificate) -> Certificate:
    """At which loss the ratio first falls below 1/16."""
    if "dominance_ratio" not in record:
        return found
    curves = record.curves("dominance_ratio")
    seed = int(curves.seeds[0])
    loss = _at(record, "loss", curves.steps, [seed])[0]
    under = np.flatnonzero(curves.values[0] < DOMINANCE)
    at = float(loss[under[0]]) if len(under) else None
    said = (
        "the ratio stays at 1/16 or above"
        if at is None
        else f"the ratio is below 1/16 from the loss {at:.6g} on (seed {seed})"
    )
    return dataclasses.replace(found, notes=(*found.notes, said), details={"crossing_loss": at})


def _seeds(record: Record, quantity: str) -> list[int]:
    return [int(s) for s in record.curves(quantity).seeds]


def _at(record: Record, quantity: str, steps: np.ndarray, seeds: list[int]) -> Curve:
    """Another column at the steps of the judged one; NaN where a seed has no value there."""
    found = np.full((len(seeds), len(steps)), np.nan)
    if quantity not in record:
        return found
    for i, seed in enumerate(seeds):
        own = record.of_seed(seed)
        if quantity not in own:
            continue
        curves = own.curves(quantity)
        known = dict(zip(curves.steps.tolist(), curves.values[0].tolist(), strict=True))
        found[i] = [known.get(int(s), np.nan) for s in steps]
    return found
