"""Audits of a training function: it is called with coins and seeds, and its models are looked at."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from surefoot._numerics.arguments import checked
from surefoot._numerics.checks import check_real
from surefoot.privacy.audit.p_value import whole
from surefoot.privacy.audit.request import FEWEST, FOR_MANY_RUNS, Statistic, check_request
from surefoot.privacy.audit.result import AuditResult, Claimed
from surefoot.privacy.audit.scores import audit_scores

if TYPE_CHECKING:
    from surefoot.record import Fact

Array = np.ndarray
TrainFn = Callable[[Any, int], Any]
ALIKE = 0.1


class CalibrationWarning(UserWarning):
    """Shadow trainings that hardly resemble each other: calibration cannot help."""


def _draws(seed: int, calls: int) -> tuple[np.random.Generator, list[int]]:
    """A generator of coins, and a seed of its own for every training."""
    root = np.random.SeedSequence(whole("seed", seed, 0))
    coins, seeds = root.spawn(2)
    made = [int(s.generate_state(1, np.uint32)[0]) for s in seeds.spawn(calls)]
    return np.random.default_rng(coins), made


def _scores(output: Any, canaries: Any, m: int) -> Float[Array, " m"]:
    """Scores as returned, or of a returned model on the canaries."""
    if isinstance(output, nn.Module):
        output = _of_model(output, canaries)
    if isinstance(output, Tensor):
        output = output.detach().cpu().double().numpy()
    check_real("what train_fn returns", output)
    values: Array = np.asarray(output, dtype=float)
    if values.shape != (m,):
        raise ValueError(f"train_fn must return a model or {m} scores, got shape {values.shape}")
    return values


def _of_model(model: nn.Module, canaries: Any) -> Any:
    if canaries is None:
        raise ValueError("canaries must be given when train_fn returns a model, got None")
    if isinstance(canaries, Tensor):
        # The start is the same in all runs: <m_T - m_0, -canary> up to a constant per canary.
        flat = torch.cat([p.detach().flatten() for p in model.parameters() if p.requires_grad])
        return -(canaries @ flat.to(canaries.dtype))
    if callable(canaries):
        return canaries(model)
    x, y = canaries
    with torch.no_grad():
        return -nn.functional.cross_entropy(model(x), y, reduction="none")


@checked(leave=("claimed",))
def one_run(
    train_fn: TrainFn,
    canaries: Any = None,
    *,
    m: int,
    k: int | Sequence[int] | None = None,
    delta: float,
    confidence: float = 0.95,
    shadow: int = 8,
    seed: int,
    claimed: Claimed | None = None,
) -> AuditResult:
    """Audit a training in one run with m canaries, each in or out by its own fair coin (arXiv 2305.08846).

    Parameters
    ----------
    train_fn
        `train_fn(include, seed)` trains with the canaries where the boolean tensor `include[m]` is true, and
        returns the model or m scores, higher meaning "in". The seed drives sampling and noise
        only: **all calls must start from the same parameters** and use the same data, else calibration
        gives nothing. It must not look at `include` when scoring.
        Where it has a `record` of the core, the facts noted there (noise, sampling, clipping, ...) are
        held against the claim.
    canaries
        What a returned model is scored on: a tensor of gradient canaries (m, P), a pair (x, y) scored by
        minus the loss, or a function of the model. Not needed when `train_fn` returns scores.
    m, k
        Canaries, and guesses on each side: one number, or several that share the confidence. Fixed
        before looking; by default 4 % of m from 2,000 on, 10 % below.
    delta
        Failure probability of the claim; 0 tests pure differential privacy.
    confidence
        Of the lower bounds.
    shadow
        Further trainings whose mean score is subtracted from the audited one's. Each has its own coins and
        its own seed: the audited coins stay independent of what is subtracted. 0 for none.
    seed
        Draws the coins and the seed of every training; the result's record is kept under it.
    claimed
        (noise multiplier, sample rate, steps), or `standard(...)`: needed for a verdict.

    Returns
    -------
    AuditResult
        With the bounds "one_run" and, for a positive delta, "one_run_fdp"; its `raw` has those without
        calibration, where there are shadow trainings.

    Raises
    ------
    ValueError
        If an argument is outside its range, or scores are missing or not finite.

    Warns
    -----
    CalibrationWarning
        If two shadow score vectors correlate by less than 0.1.
    """
    m, shadow = whole("m", m, FEWEST), whole("shadow", shadow, 0)
    statistics: tuple[Statistic, ...] = ("one_run",) if delta == 0 else ("one_run", "one_run_fdp")
    check_request(statistics, m=m, delta=delta, k=k, confidence=confidence, claimed=claimed)
    coins, seeds = _draws(seed, 1 + shadow)
    rows: list[Float[Array, " m"]] = []
    facts: dict[str, Fact] = {}
    included: Bool[Array, " m"] = np.zeros(m, dtype=bool)
    for i, each in enumerate(seeds):
        include = coins.random(m) < 0.5
        if i == 0:
            included = include
        output = train_fn(torch.from_numpy(include.copy()), each)
        facts |= _seen(output)
        rows.append(_scores(output, canaries, m))
    reference = np.stack(rows[1:]) if shadow else None
    if shadow >= 2:
        _check_alike(rows[1], rows[2])
    return audit_scores(
        rows[0], included, method=statistics, delta=delta, k=k, reference=reference,
        confidence=confidence, seed=seed, claimed=claimed, ran=train_fn, facts=facts,
    )  # fmt: skip


def _seen(output: Any) -> dict[str, Fact]:
    """A model that was returned is all that the audit looks at; where scores come from nobody knows."""
    return {"releases": "last"} if isinstance(output, nn.Module) else {}


def _check_alike(a: Float[Array, " m"], b: Float[Array, " m"]) -> None:
    if not (np.isfinite(a).all() and np.isfinite(b).all()) or a.std() == 0 or b.std() == 0:
        return
    alike = float(np.corrcoef(a, b)[0, 1])
    if alike < ALIKE:
        warnings.warn(
            f"shadow scores correlate by {alike:.2f}: either nothing but noise is in them, or the runs "
            "do not start from the same parameters; calibration will not help",
            CalibrationWarning,
            stacklevel=3,
        )


@checked(leave=("claimed", "threshold"))
def many_runs(
    train_fn: Callable[[bool, int], Any],
    score_fn: Callable[[Any], float],
    runs: int,
    *,
    delta: float,
    method: Statistic | Sequence[Statistic] = ("clopper", "gdp", "last_iterate"),
    threshold: float | None = None,
    confidence: float = 0.95,
    seed: int,
    claimed: Claimed | None = None,
) -> AuditResult:
    """Audit a training by repeating it `runs` times with one canary and as often without.

    Parameters
    ----------
    train_fn
        `train_fn(include, seed)` trains with or without the canary and returns the model.
    score_fn
        Its score, higher meaning "in".
    runs
        Trainings on each side.
    delta, confidence
        As in `one_run`.
    method
        Which bounds: "clopper" assumes nothing, "gdp" and "last_iterate" the shape of the privacy loss.
    threshold
        Accuse above it, in the distribution-free bound; by default chosen on half of the trainings, which are
        then not counted there. Bounds that assume a family look at ranks of all scores instead.
    seed
        Draws the seed of every training; the result's record is kept under it.
    claimed
        As in `one_run`; "last_iterate" needs its sample rate and steps, and is left out without.

    Raises
    ------
    ValueError
        If an argument is outside its range, or a score is not finite.
    """
    runs = whole("runs", runs, FEWEST)
    statistics = (method,) if isinstance(method, str) else tuple(method)
    for each in statistics:
        if each not in FOR_MANY_RUNS:
            raise ValueError(
                f"method must be of {sorted(FOR_MANY_RUNS)} for many runs, got {each!r}"
            )
    if claimed is None:
        statistics = tuple(each for each in statistics if each != "last_iterate") or ("clopper",)
    check_request(
        statistics, m=2 * runs, delta=delta, threshold=threshold, confidence=confidence,
        claimed=claimed,
    )  # fmt: skip
    _, seeds = _draws(seed, 2 * runs)
    included = np.arange(2 * runs) % 2 == 0
    scores: list[float] = []
    facts: dict[str, Fact] = {}
    for include, own in zip(included, seeds, strict=True):
        output = train_fn(bool(include), own)
        facts |= _seen(output)
        scores.append(float(score_fn(output)))
    return audit_scores(
        np.array(scores), included, method=statistics, delta=delta, threshold=threshold,
        confidence=confidence, seed=seed, claimed=claimed, ran=train_fn, facts=facts,
    )  # fmt: skip
