"""What a record says of a private training, as conditions and promised values of the claims."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from surefoot.guarantee import Assumption, assume_fact
from surefoot.privacy.composition import standard
from surefoot.privacy.facts import (
    CLAIMED,
    NOISED,
    WEIGHT,
    History,
    as_arguments,
    distinct,
    recorded_histories,
)
from surefoot.privacy.heuristic import last_iterate
from surefoot.privacy.result import Value
from surefoot.record import Fact, Record

LINEAR = "the losses and the regulariser are linear in the parameters"
Weights = tuple[float, ...] | None


@functools.lru_cache(maxsize=256)
def proven_value(history: History, delta: float, weights: Weights = None) -> Value:
    return standard(*as_arguments(history)).epsilon(delta)


@functools.lru_cache(maxsize=256)
def plausible_value(history: History, delta: float, weights: Weights = None) -> Value:
    return last_iterate(*as_arguments(history), weights=weights).epsilon(delta)


def step_weights(record: Record, of: str) -> dict[int, Weights]:
    column = f"{of}, {WEIGHT}" if of and f"{of}, {WEIGHT}" in record else WEIGHT
    if column not in record:
        return {}
    curves = record.curves(column)
    rows = zip(curves.seeds, curves.values, strict=True)
    return {int(seed): tuple(float(a) for a in row) for seed, row in rows}


def values_of(
    record: Record, of: str, value: Callable[[History, float, Weights], Value]
) -> dict[int, Value | None]:
    """For every seed, what its record promises; None where it does not say, or says two things."""
    ran, claimed = recorded_histories(record, of), recorded_histories(record, of, CLAIMED)
    deltas, weights = record.fact("delta", of), step_weights(record, of)
    # Steps along known directions hide nothing, and a number would only look like a promise.
    known = value is plausible_value and assume_directions(record, of)
    found: dict[int, Value | None] = {}
    for seed in {*ran, *claimed}:
        said = distinct((*ran.get(seed, ()), *claimed.get(seed, ())))
        delta = deltas.values.get(seed, ())
        found[seed] = None
        if len(said) == 1 and len(delta) == 1 and not known:
            (history,) = said
            found[seed] = value(history, float(delta[0]), weights.get(seed))
    return found


def promised(
    record: Record, quantity: str, of: str, value: Callable[[History, float, Weights], Value]
) -> Float[np.ndarray, "seeds 1"]:
    """The upper bound of each seed's value; infinite, which promises nothing, where there is none."""
    values = values_of(record, of, value)
    each = [values.get(int(seed)) for seed in record.curves(quantity).seeds]
    return np.array([[math.inf if v is None else v.upper] for v in each])


def assume_setting(
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
    each = {v.value for v in values_of(record, of, value).values() if v is not None}
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


# What is protected is a client with all that it has, not an example.
OF_CLIENTS = "add/remove one client"


def assume_sampled(record: Record, of: str) -> tuple[Assumption, ...]:
    """What both values ask of the training."""
    asked: tuple[tuple[str, str, str, Fact], ...] = (
        ("sampling", "Poisson sampling", "each example in each batch by its own coin", "poisson"),
        ("clipping", "clipped gradients", "the gradient of each example clipped", "per example"),
        ("adjacency", "adjacency", "one example added or removed", "add/remove"),
    )
    if record.fact("adjacency", of).all == (OF_CLIENTS,):
        asked = (
            (
                "sampling",
                "Poisson sampling",
                "each client in each round by its own coin",
                "poisson",
            ),
            ("clipping", "clipped updates", "the update of each client clipped", "per client"),
            ("adjacency", "adjacency", "one client added or removed", OF_CLIENTS),
        )
    return tuple(
        assume_fact(record, fact, name, requires, functools.partial(_equals, wanted), of=of)
        for fact, name, requires, wanted in asked
    )


def assume_mechanism(record: Record, of: str) -> tuple[Assumption, ...]:
    """What a proven value asks besides: the mechanism of the proof, and that nothing else left."""

    def fact(name: str, title: str, requires: str, holds: Callable[[Fact], bool]) -> Assumption:
        return assume_fact(record, name, title, requires, holds, of=of)

    return (
        fact("mechanism", "mechanism", "the sum over a Poisson sample, with Gaussian noise",
             functools.partial(_equals, "poisson-subsampled gaussian")),
        fact("clip_norm", "clip norm", "a finite C > 0", _is_norm),
        fact("non_finite", "values that are not finite", "0 in their place, per example and before the sum",
             functools.partial(_equals, "zero")),
        fact("secret_noise", "secret noise", "noise of a generator that nobody else knows", _is_true),
        fact("secret_sampling", "secret coins", "coins of a generator that nobody else knows", _is_true),
        fact("divisor", "constant divisor", "sums divided by a constant, never by a batch's size",
             functools.partial(_equals, "constant")),
        fact("population_public", "public population", "N, or a lower limit of it, is public", _is_true),
        _one_run(record, of),
        _nothing_else(record, of),
    )  # fmt: skip


def _one_run(record: Record, of: str) -> Assumption:
    """That what was released under one name and seed was released by one run: several add up."""
    known = record.fact("private_run", of)
    several = [seed for seed, runs in known.values.items() if len(runs) > 1]
    state = False if several else True if known.all and not known.missing else None
    how = f"{len(known.all)} runs in {len(known.values)} seeds" if known.all else "not recorded"
    if several:
        how += (
            "; what several runs release adds up: give each a record, a seed or a name of its own"
        )
    return Assumption("one run", "all releases under one seed are of one run", None, state, how)


def _nothing_else(record: Record, of: str) -> Assumption:
    """True where all that left is known to be covered by the noise; a word that is not known is not."""
    known = record.fact("released", of)
    left = [word.strip() for said in known.all for word in str(said).split(",")]
    bare = [word for word in left if word and word not in NOISED]
    state = False if bare else True if known.all and not known.missing else None
    how = f"recorded: {known}" + (f"; without noise: {', '.join(bare)}" if bare else "")
    requires = "losses, metrics, counts and marks stay inside"
    return Assumption("nothing else left", requires, None, state, how)


def assume_directions(record: Record, of: str) -> tuple[Assumption, ...]:
    """Of steps along directions: that none is known, which no one can promise of them. Else nothing."""
    forward, public = (record.fact(name, of).all for name in ("forward_only", "public_directions"))
    if True not in (*forward, *public):
        return ()
    how = "directions of a secret seed: no theorem speaks of iterates that they hide"
    if not public or True in public:
        how = _public_words(record, of)
    return (Assumption("hidden directions", "gradients, or steps of which nothing is known",
                       None, False, how),)  # fmt: skip


def _public_words(record: Record, of: str) -> str:
    """Why the final weights of steps along known directions hide no release, with the run's numbers."""
    histories = [h for found in recorded_histories(record, of).values() for h in found]
    steps = {sum(count for _, _, count in history) for history in histories}
    numbers = [record.fact(name, of).all for name in ("directions", "trained_numbers")]
    if len(steps) != 1 or any(len(n) != 1 for n in numbers):
        return "directions are public: final weights determine every release while T K <= trained numbers"
    releases, trained = steps.pop() * int(numbers[0][0]), int(numbers[1][0])
    if releases <= trained:
        return (
            f"directions are public, T K = {releases} <= {trained} trained numbers: "
            "final weights determine every release"
        )
    return (
        f"directions are public, T K = {releases} > {trained} trained numbers: final weights are known sums "
        "of the releases, and no theorem speaks of what these hide"
    )


def _is_true(given: Fact) -> bool:
    return given is True


def _is_norm(given: Fact) -> bool:
    return isinstance(given, (int, float)) and 0 < given < math.inf


def _equals(wanted: Fact, given: Fact) -> bool:
    return given == wanted


def assume_alike(record: Record, of: str) -> Assumption:
    """That every step counts the same, or that the record knows what each counts."""
    name, requires = "weights of the steps", "all steps count the same, or as recorded"
    known = [record.fact(fact, of) for fact in ("optimizer", "lr", "momentum", "weight_decay")]
    how = "recorded: " + "; ".join(map(str, known))
    seeds = {s for k in known for s in (*k.values, *k.missing)}
    if seeds and seeds <= set(step_weights(record, of)):
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


def assume_linear(record: Record, of: str) -> Assumption:
    """True where the meter said OK, False where it said violated; strained decides nothing."""
    known = record.fact("linearity", of)
    state: bool | None = None
    if "violated" in known.all:
        state = False
    elif known.all == ("OK",) and not known.missing:
        state = True
    how = f"recorded: {known}" if known.all else "not measured; LinearityMeter does"
    return Assumption("linear losses", LINEAR, None, state, how)
