"""Audits of scores that were computed anywhere: one per canary, or one per training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float

from surefoot._numerics.arguments import checked
from surefoot._numerics.checks import check_real
from surefoot.privacy.audit.error_rates import Limits, error_limits
from surefoot.privacy.audit.p_value import epsilon_one_run, parameter_one_run, whole
from surefoot.privacy.audit.ranks import Ranks
from surefoot.privacy.audit.request import Statistic, check_request, check_scores, rate_and_steps
from surefoot.privacy.audit.result import AuditResult, Claimed, conclude
from surefoot.privacy.audit.tradeoff import last_iterate_blowup
from surefoot.privacy.heuristic import last_iterate

if TYPE_CHECKING:
    from surefoot.record import Fact

Array = np.ndarray
LOOSE = (
    "threshold chosen on one half of the trainings, counted on the other (distribution-free bound)"
)


def calibrated(scores: Float[Array, " m"], reference: Any) -> Float[Array, " m"]:
    """Scores less the mean of shadow trainings, whose coins were drawn independently of the audited ones.

    Raises
    ------
    ValueError
        If the reference does not fit or is not finite.
    """
    check_real("reference", reference)
    try:
        shadows: Array = np.atleast_2d(np.asarray(reference, dtype=float))
    except (TypeError, ValueError):
        raise ValueError(
            f"reference must be scores of shadow trainings, got {reference!r}"
        ) from None
    if shadows.ndim != 2 or shadows.shape[1] != len(scores) or not len(shadows):
        raise ValueError(
            f"reference must have shape (K, {len(scores)}) with K >= 1, got {np.shape(reference)}"
        )
    if not np.isfinite(shadows).all():
        raise ValueError("reference must be finite, got NaN or infinity")
    return np.asarray(scores - shadows.mean(axis=0))


def correct_guesses(
    scores: Float[Array, " m"], included: Bool[Array, " m"], k: int, seed: int
) -> int:
    """Right ones of 2k guesses: in for the k highest scores, out for the k lowest; ties by lot."""
    lot = np.random.default_rng(seed).permutation(len(scores))
    order = lot[np.argsort(scores[lot], kind="stable")]
    if scores.min() == scores.max():
        # Nothing to go by: half right is what guessing deserves, not what luck makes of it.
        return k
    return int((~included[order[:k]]).sum() + included[order[-k:]].sum())


@checked(leave=("scores", "included", "reference", "claimed", "threshold"))
def from_scores(
    scores: Float[Array, " m"] | Sequence[float],
    included: Bool[Array, " m"] | Sequence[bool],
    *,
    method: Statistic | Sequence[Statistic] = "one_run",
    delta: float,
    k: int | Sequence[int] | None = None,
    threshold: float | None = None,
    reference: Float[Array, "K m"] | None = None,
    confidence: float = 0.95,
    seed: int = 0,
    claimed: Claimed | None = None,
) -> AuditResult:
    """Lower bounds on epsilon from scores, higher meaning "in".

    Parameters
    ----------
    scores, included
        One run: a score and a fair coin per canary, all scores from the same model. Many runs
        (statistics "clopper", "gdp", "last_iterate"): a score per training, and whether it had the canary.
    method
        Which bounds; several may be given. "one_run" or "clopper" is always among them: findings need it.
    delta
        Failure probability of the claim.
    k
        Guesses on each side, fixed before looking; several share the confidence (Bonferroni).
    threshold
        Accuse above this score, in the distribution-free bound of many runs; by default chosen on every
        other training of each side. Bounds that assume a family look at ranks of all scores instead.
    reference
        Scores of shadow trainings for the same canaries, with coins of their own.
    confidence
        Of the lower bounds.
    seed
        Breaks ties between scores; the result's record is kept under it.
    claimed
        (noise multiplier, sample rate, steps), or `standard(...)`: needed for a verdict and for
        "last_iterate".

    Raises
    ------
    ValueError
        If something is not as it must be, with its name and value.
    """
    return audit_scores(
        scores, included, method=method, delta=delta, k=k, threshold=threshold,
        reference=reference, confidence=confidence, seed=seed, claimed=claimed,
    )  # fmt: skip


def audit_scores(
    scores: Any,
    included: Any,
    *,
    method: Statistic | Sequence[Statistic],
    delta: float,
    k: int | Sequence[int] | None = None,
    threshold: float | None = None,
    reference: Any = None,
    confidence: float,
    seed: int,
    claimed: Claimed | None,
    ran: Any = None,
    facts: Mapping[str, Fact] | None = None,
) -> AuditResult:
    """`from_scores`, for a caller who knows what was trained: `ran` and `facts` as in `conclude`."""
    values, coins = check_scores(scores, included)
    seed = whole("seed", seed, 0)
    statistics, ks = check_request(
        method, m=len(values), delta=delta, k=k, threshold=threshold, confidence=confidence,
        claimed=claimed,
    )  # fmt: skip
    if not ks:
        if reference is not None:
            raise ValueError("reference is for one run, got it with a method for many")
        found = _many(values, coins, statistics, delta, threshold, confidence, claimed)
        return conclude(
            delta=delta, confidence=confidence, claimed=claimed, seed=seed, ran=ran, facts=facts,
            **found,
        )  # fmt: skip
    raw: dict[str, float] = {}
    if reference is not None:
        raw = _one(values, coins, statistics, ks, delta, confidence, seed, claimed)[0]
        values = calibrated(values, reference)
    bounds, best, right = _one(values, coins, statistics, ks, delta, confidence, seed, claimed)
    shared = 1 - (1 - confidence) / len(ks)
    ceiling = epsilon_one_run(len(values), 2 * best, 2 * best, delta, shared)
    return conclude(
        bounds, delta, confidence, claimed, seed=seed, ran=ran, facts=facts,
        ceiling=ceiling, guesses=2 * best, correct=right, k=best, raw=raw,
    )  # fmt: skip


def _one(
    scores: Float[Array, " m"],
    included: Bool[Array, " m"],
    statistics: Sequence[str],
    ks: Sequence[int],
    delta: float,
    confidence: float,
    seed: int,
    claimed: Claimed | None,
) -> tuple[dict[str, float], int, int]:
    """The bounds, and k and the right guesses of the best distribution-free one."""
    m = len(scores)
    shared = 1 - (1 - confidence) / len(ks)
    bounds: dict[str, float] = {}
    best, right = ks[0], -1
    for k in ks:
        correct = correct_guesses(scores, included, k, seed)
        found = epsilon_one_run(m, 2 * k, correct, delta, shared)
        if right < 0 or found > bounds["one_run"]:
            best, right = k, correct
        bounds["one_run"] = max(found, bounds.get("one_run", 0.0))
        if "one_run_fdp" in statistics:
            family = epsilon_one_run(m, 2 * k, correct, delta, shared, method="one_run_fdp")
            bounds["one_run_fdp"] = max(family, bounds.get("one_run_fdp", 0.0))
        if "one_run_last_iterate" in statistics:
            found = _last_iterate_one_run(m, 2 * k, correct, delta, shared, claimed)
            bounds["one_run_last_iterate"] = max(found, bounds.get("one_run_last_iterate", 0.0))
    return bounds, best, right


def _last_iterate_one_run(
    m: int, guesses: int, correct: int, delta: float, confidence: float, claimed: Claimed | None
) -> float:
    q, steps = rate_and_steps(claimed)
    scale = parameter_one_run(
        m, guesses, correct, confidence, lambda x: last_iterate_blowup(x, q, steps)
    )
    return last_iterate(1 / scale, q, steps).epsilon(delta).value if scale > 0 else 0.0


def _many(
    scores: Float[Array, " runs"],
    included: Bool[Array, " runs"],
    statistics: Sequence[str],
    delta: float,
    threshold: float | None,
    confidence: float,
    claimed: Claimed | None,
) -> dict[str, Any]:
    """The fields of the result that many runs of one canary fill."""
    inside, outside = scores[included], scores[~included]
    notes: tuple[str, ...] = ()
    ranks = Ranks(inside, outside, confidence)
    if threshold is None:
        if min(len(inside), len(outside)) < 2:
            raise ValueError(
                "scores must hold two trainings of each side to choose a threshold, "
                f"got {len(inside)} and {len(outside)}"
            )
        threshold = _threshold(inside[::2], outside[::2], delta, confidence)
        inside, outside = inside[1::2], outside[1::2]
        notes = (LOOSE,)
    limits = _limits(inside, outside, threshold, delta, confidence)
    bounds = {"clopper": limits.epsilon}
    if "gdp" in statistics:
        bounds["gdp"] = ranks.gaussian_epsilon(delta)
    if "last_iterate" in statistics:
        bounds["last_iterate"] = ranks.last_iterate_epsilon(delta, *rate_and_steps(claimed))
    best = error_limits(0, len(outside), 0, len(inside), delta, confidence).epsilon
    return {"bounds": bounds, "ceiling": best, "limits": limits, "notes": notes}


def _limits(
    inside: Float[Array, " a"],
    outside: Float[Array, " b"],
    threshold: float,
    delta: float,
    confidence: float,
) -> Limits:
    fp, fn = int((outside > threshold).sum()), int((inside <= threshold).sum())
    return error_limits(fp, len(outside), fn, len(inside), delta, confidence)


def _threshold(
    inside: Float[Array, " a"], outside: Float[Array, " b"], delta: float, confidence: float
) -> float:
    """The score whose error limits give the largest Gaussian mu; many candidates, one half of the data."""
    candidates = np.quantile(np.concatenate([inside, outside]), np.linspace(0.01, 0.99, 99))
    found = [_limits(inside, outside, float(c), delta, confidence).mu for c in candidates]
    return float(candidates[int(np.argmax(found))])
