"""What a private training was, as facts of a record: written by what ran, read by the claims.

| fact | words or numbers | written by |
| --- | --- | --- |
| `noise_multiplier`, `sample_rate`, `steps` | sigma, q, T (or the quantity `released_steps`) | what trained |
| `history` | the same as JSON runs [[sigma, q, count], ...], where the steps differ | what trained |
| `claimed_...` | the same names: the promise under audit | the audit |
| `sampling` | poisson, shuffled | what drew the batches |
| `mechanism` | poisson-subsampled gaussian | what released |
| `clipping`, `clip_norm` | per example, or per client; C | what clipped |
| `non_finite` | zero: what an example contributes where its value is NaN or infinite | what clipped |
| `divisor` | constant: sums are divided by q times N, never by a batch's size | what divided |
| `secret_noise`, `secret_sampling` | whether nobody else knows their generator | what drew them |
| `population`, `population_public` | N; whether it, or a lower limit of it, is public | what sampled |
| `private_run` | a name that no other run has: releases of several add up | what released |
| `released` | what left, in words of `NOISED` or others | whoever let it out |
| `forward_only` | steps are numbers along directions, no gradients | what trained |
| `public_directions` | whether the seed of the directions is known | what trained |
| `directions`, `trained_numbers` | K a step; d | what trained |
| `optimizer`, `lr`, `momentum`, `weight_decay` | the update | what trained |
| `accountant` | prv, rdp, ... | the engine |
| `adjacency` | add/remove (an example), add/remove one client | the audit, by its coins; what trained |
| `releases` | last, all | what looked at the models |
| `delta`, `confidence`, `statistic` | of the bound | the audit |
| `linearity` | OK, strained, violated | `LinearityMeter` |
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from surefoot.record import Fact, Record

History = tuple[tuple[float, float, int], ...]
CLAIMED = "claimed_"
BOUND = "audit lower bound"
# A quantity in place of the fact `steps`: a run does not know at its start how many it will make.
COUNTED = "released_steps"
SETTING = ("noise_multiplier", "sample_rate", "steps")
# What the noise covers, and what follows from that alone.
NOISED = (
    "noised scalars", "noised gradients", "noised sums", "weights", "step log", "direction seed", "settings",
)  # fmt: skip
# The promised curve of a heuristic with unequal steps needs a number a step, which is no fact.
WEIGHT = "weight of the step"


def merged(runs: Iterable[Sequence[Any]]) -> History:
    """Runs (sigma, q, count), neighbours of equal sigma and q joined."""
    plain = [(float(sigma), float(q), int(count)) for sigma, q, count in runs]
    return tuple(
        (sigma, q, sum(count for _, _, count in same))
        for (sigma, q), same in itertools.groupby(plain, key=lambda run: run[:2])
    )


def as_arguments(history: History) -> tuple[Any, Any, int]:
    """(sigma, q, T) as `standard` and `last_iterate` take them: one number each, or one per step."""
    steps = sum(count for _, _, count in history)
    sigma, q = (_per_step([(run[i], run[2]) for run in history]) for i in (0, 1))
    return sigma, q, steps


def _per_step(runs: list[tuple[float, int]]) -> float | list[float]:
    if len({value for value, _ in runs}) == 1:
        return runs[0][0]
    return [value for value, count in runs for _ in range(count)]


def setting_facts(history: History, prefix: str = "") -> dict[str, Fact]:
    """The history under the names of the table above; `prefix` is "claimed_" for a promise."""
    history = merged(history)
    if len(history) == 1:
        return {prefix + name: value for name, value in zip(SETTING, history[0], strict=True)}
    return {f"{prefix}history": json.dumps(history)}


def recorded_histories(
    record: Record, of: str = "", prefix: str = ""
) -> dict[int, tuple[History, ...]]:
    """What each seed noted: no history, one, or several that contradict each other.

    Parameters
    ----------
    record
        Of one or several seeds.
    of
        Whose facts, where the record holds several trainings.
    prefix
        "claimed_" for the promise under audit.
    """
    whole = record.fact(f"{prefix}history", of)
    parts = [record.fact(prefix + name, of) for name in SETTING]
    seeds = {s for known in (whole, *parts) for s in (*known.values, *known.missing)}
    counted = {} if prefix else _counted(record, of)
    found = {}
    for seed in sorted(seeds):
        written = [merged(json.loads(str(h))) for h in whole.values.get(seed, ())]
        sigma, q, steps = (known.values.get(seed, ()) for known in parts)
        combined = itertools.product(sigma, q, steps or counted.get(seed, ()))
        found[seed] = tuple(dict.fromkeys([*written, *(merged([run]) for run in combined)]))
    return found


def _counted(record: Record, of: str) -> dict[int, tuple[int, ...]]:
    """How many steps each seed has let go, where it counted them as it went."""
    name = f"{of}.{COUNTED}" if of else COUNTED
    if name not in record:
        return {}
    return {seed: (int(value),) for seed, (_, value) in record.last(name).items()}


def distinct(histories: Iterable[History]) -> tuple[History, ...]:
    """The first of those that are equal up to rounding: q = 1 / 3 may be computed in several ways."""

    def rounded(history: History) -> tuple[tuple[str, str, int], ...]:
        return tuple((f"{sigma:.9g}", f"{q:.9g}", count) for sigma, q, count in history)

    return tuple({rounded(h): h for h in reversed(tuple(histories))}.values())


def copy_facts(
    source: Record, target: Record, seed: int, of: str = "", without: Collection[str] = ()
) -> None:
    """Note for one seed of the target (and one of several arms) whatever the source noted.

    Parameters
    ----------
    source
        A record of one thing that ran.
    target, seed, of
        Where to, and under which seed and arm.
    without
        Facts that stay behind.
    """
    # Facts are of one thing that ran: a record of several arms has no place here.
    for name, known in source.facts.items():
        for value in () if name in without else known.all:
            target.note(seed, of, **{name: value})


def record_of(ran: Any) -> Record | None:
    """The record of something that ran, if it keeps one."""
    record = getattr(ran, "record", None)
    return record if isinstance(record, Record) else None
