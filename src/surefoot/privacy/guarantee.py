"""What an audit is held against, as core guarantees: the proven epsilon, and the heuristic one.

Noise, rate, steps, delta and everything that the two values rest on are facts of the record
(`surefoot.privacy.facts`); nobody tells them a second time. Where an audit notes what was claimed and what
trained notes what it did, the two must agree.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from surefoot.guarantee import Assumption, Guarantee, assume_fact
from surefoot.privacy.composition import standard
from surefoot.privacy.facts import (
    CLAIMED,
    WEIGHT,
    History,
    as_arguments,
    distinct,
    recorded_histories,
)
from surefoot.privacy.heuristic import last_iterate
from surefoot.privacy.result import Value
from surefoot.record import Fact, Record

# An epsilon above this distinguishes nothing that matters: e^20 is half a billion.
USELESS = 20.0
LINEAR = "the losses and the regulariser are linear in the parameters"
# The two are computed apart, and at T = 1 they are the same curve.
GRID_ERROR = 2e-4
Weights = tuple[float, ...] | None


def proven_claim(quantity: str, *, of: str = "", name: str | None = None) -> Guarantee:
    """No audit may exceed the proven epsilon: one that does convicts the implementation.

    A correct implementation exceeds it with probability at most 1 - confidence in each seed, the
    confidence being the audit's. A record without noise, rate, steps or delta promises nothing.

    Parameters
    ----------
    quantity
        The record column with audited lower bounds on epsilon.
    of
        Whose facts, where the record holds several trainings.
    name
        Of the guarantee; by default "<quantity> <= proven".
    """
    return Guarantee(
        name=name or f"{quantity} <= proven",
        statement="epsilon_audit <= epsilon_standard(delta) of the recorded noise, rate and steps, "
        "each seed at the confidence of its audit",
        latex=r"\hat\varepsilon \le \varepsilon_{\mathrm{std}}(\delta)",
        source="standard composition of Poisson-subsampled Gaussians",
        quantity=quantity,
        sense="upper",
        holds_in="every run",
        bound=lambda record: _promised(record, quantity, of, _proven),
        assumptions=lambda record: (_setting(record, of, _proven), *_sampled(record, of)),
        trivial=USELESS,
    )


def heuristic_claim(quantity: str, *, of: str = "", name: str | None = None) -> Guarantee:
    """The last-iterate heuristic as a claim on audits: it can be refuted and never proven.

    Steps that count differently enter where the record has the column "weight of the step"
    (`LinearWeights.record`). Losses that `LinearityMeter` found violated void the claim.

    Parameters
    ----------
    quantity, of
        As in `proven_claim`.
    name
        By default "<quantity> <= heuristic".
    """
    return Guarantee(
        name=name or f"{quantity} <= heuristic",
        statement="epsilon_audit <= epsilon_H(delta) of the recorded noise, rate and steps, "
        "each seed at the confidence of its audit",
        latex=r"\hat\varepsilon \le \varepsilon_H(\delta)",
        source="arXiv 2410.06186, the last-iterate heuristic",
        quantity=quantity,
        sense="upper",
        holds_in="every run",
        bound=lambda record: _promised(record, quantity, of, _plausible),
        assumptions=lambda record: (
            _setting(record, of, _plausible),
            *_sampled(record, of),
            assume_fact(
                record, "releases", "hidden iterates", "only the last iterate is seen",
                lambda v: v == "last", of=of,
            ),
            _alike(record, of),
            _linear(record, of),
        ),
        heuristic=True,
        trivial=USELESS,
    )  # fmt: skip


def postprocessing_claim(quantity: str, proven: str, *, name: str | None = None) -> Guarantee:
    """Publishing the last iterate only is post-processing of publishing all: it cannot leak more.

    Parameters
    ----------
    quantity, proven
        The record columns of the heuristic and of the standard value.
    name
        Of the guarantee.
    """
    return Guarantee(
        name=name or "linear losses leak no more than composition",
        statement="epsilon_H(delta) <= epsilon_standard(delta)",
        latex=r"\varepsilon_H(\delta) \le \varepsilon_{\mathrm{std}}(\delta)",
        source="arXiv 2410.06186 (linear losses) and post-processing; checked here",
        quantity=quantity,
        sense="upper",
        holds_in="every run",
        bound=lambda record: record.curves(proven).values,
        atol=GRID_ERROR,
        trivial=USELESS,
    )


@functools.lru_cache(maxsize=256)
def _proven(history: History, delta: float, weights: Weights = None) -> Value:
    return standard(*as_arguments(history)).epsilon(delta)


@functools.lru_cache(maxsize=256)
def _plausible(history: History, delta: float, weights: Weights = None) -> Value:
    return last_iterate(*as_arguments(history), weights=weights).epsilon(delta)


def _weights(record: Record, of: str) -> dict[int, Weights]:
    column = f"{of}, {WEIGHT}" if of and f"{of}, {WEIGHT}" in record else WEIGHT
    if column not in record:
        return {}
    curves = record.curves(column)
    rows = zip(curves.seeds, curves.values, strict=True)
    return {int(seed): tuple(float(a) for a in row) for seed, row in rows}


def _values(
    record: Record, of: str, value: Callable[[History, float, Weights], Value]
) -> dict[int, Value | None]:
    """For every seed, what its record promises; None where it does not say, or says two things."""
    ran, claimed = recorded_histories(record, of), recorded_histories(record, of, CLAIMED)
    deltas, weights = record.fact("delta", of), _weights(record, of)
    found: dict[int, Value | None] = {}
    for seed in {*ran, *claimed}:
        said = distinct((*ran.get(seed, ()), *claimed.get(seed, ())))
        delta = deltas.values.get(seed, ())
        found[seed] = None
        if len(said) == 1 and len(delta) == 1:
            (history,) = said
            found[seed] = value(history, float(delta[0]), weights.get(seed))
    return found


def _promised(
    record: Record, quantity: str, of: str, value: Callable[[History, float, Weights], Value]
) -> Float[np.ndarray, "seeds 1"]:
    """The upper bound of each seed's value; infinite, which promises nothing, where there is none."""
    values = _values(record, of, value)
    each = [values.get(int(seed)) for seed in record.curves(quantity).seeds]
    return np.array([[math.inf if v is None else v.upper] for v in each])


def _setting(
    record: Record, of: str, value: Callable[[History, float, Weights], Value]
) -> Assumption:
    """That noise, rate and steps are known, and that what was claimed is what ran."""
    ran, claimed = recorded_histories(record, of), recorded_histories(record, of, CLAIMED)
    seeds = sorted({*ran, *claimed})
    said = [distinct((*ran.get(s, ()), *claimed.get(s, ()))) for s in seeds]
    if any(len(found) > 1 for found in said):
        state: bool | None = False
    else:
        state = True if seeds and all(ran.get(s) for s in seeds) else None
    each = {v.value for v in _values(record, of, value).values() if v is not None}
    epsilon = (
        f"epsilon {min(each):.4g}" if len(each) == 1 else "epsilon by seed" if each else "none"
    )
    return Assumption(
        "noise, rate and steps",
        "one (sigma, q, T): claimed as it ran",
        None,
        state,
        f"promised: {epsilon} at {record.fact('delta', of)}, {record.fact('confidence', of)}; "
        f"ran: {_shown(ran)}; claimed: {_shown(claimed)}",
    )


def _shown(histories: dict[int, tuple[History, ...]]) -> str:
    each = dict.fromkeys(h for found in histories.values() for h in found)
    words = [
        f"sigma {h[0][0]:g}, q {h[0][1]:g}, T {h[0][2]}"
        if len(h) == 1
        else f"{len(h)} runs of different steps, T {sum(count for _, _, count in h)}"
        for h in each
    ]
    return " and ".join(words) or "not recorded"


def _sampled(record: Record, of: str) -> tuple[Assumption, ...]:
    """What both values ask of the training."""
    asked: tuple[tuple[str, str, str, Fact], ...] = (
        ("sampling", "Poisson sampling", "each example in each batch by its own coin", "poisson"),
        ("clipping", "clipped gradients", "the gradient of each example clipped", "per example"),
        ("adjacency", "adjacency", "one example added or removed", "add/remove"),
    )
    return tuple(
        assume_fact(record, fact, name, requires, functools.partial(_equals, wanted), of=of)
        for fact, name, requires, wanted in asked
    )


def _equals(wanted: Fact, given: Fact) -> bool:
    return given == wanted


def _alike(record: Record, of: str) -> Assumption:
    """That every step counts the same, or that the record knows what each counts."""
    name, requires = "weights of the steps", "all steps count the same, or as recorded"
    known = [record.fact(fact, of) for fact in ("optimizer", "lr", "momentum", "weight_decay")]
    how = "recorded: " + "; ".join(map(str, known))
    seeds = {s for k in known for s in (*k.values, *k.missing)}
    if seeds and seeds <= set(_weights(record, of)):
        return Assumption(name, requires, None, True, f"{how}; {WEIGHT} recorded")
    optimizer, lr, momentum, decay = known
    uneven = (
        any(v != "SGD" for v in optimizer.all)
        or any(len(v) > 1 for v in lr.values.values())
        or any(v != 0 for v in (*momentum.all, *decay.all))
    )
    if uneven:
        return Assumption(name, requires, None, False, how)
    complete = all(k.all and not k.missing for k in known)
    return Assumption(name, requires, None, True if complete else None, how)


def _linear(record: Record, of: str) -> Assumption:
    """True where the meter said OK, False where it said violated; strained decides nothing."""
    known = record.fact("linearity", of)
    state: bool | None = None
    if "violated" in known.all:
        state = False
    elif known.all == ("OK",) and not known.missing:
        state = True
    how = f"recorded: {known}" if known.all else "not measured; LinearityMeter does"
    return Assumption("linear losses", LINEAR, None, state, how)
