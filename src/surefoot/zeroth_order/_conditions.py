"""What a run must have been for the theorems of zeroth-order steps, as its record says it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from surefoot.guarantee import Assumption, assume_fact
from surefoot.record import Fact, Record
from surefoot.zeroth_order._engine.recording import column, read_shapes

LINEAR = 0.05
"""How far fd_error may be from 0."""


@dataclass(frozen=True)
class Run:
    """What a bound needs of one seed's run; each is a fact that has one value."""

    alpha: float
    nu: int
    scale: str
    v_dist: str
    shapes: tuple[tuple[int, int, int], ...]
    dense: int


FACTS = ("lr", "nu", "scale", "v_dist", "low_rank_shapes", "dense_entries")


def runs_of(record: Record, of: str) -> dict[int, Run]:
    """The run of each seed, as its record says it; where a fact has several values, the first.

    Raises
    ------
    ValueError
        If a fact is not there, naming it.
    """
    known = {name: record.fact(name, of) for name in FACTS}
    for name, fact in known.items():
        if fact.missing or not fact.values:
            raise ValueError(
                f"the record does not say {name} of seed {[*fact.missing, 'any'][0]}"
                + (f" of {of!r}" if of else "")
                + ": give it to the optimizer that ran (record=)"
            )
    found = {}
    for seed in known["lr"].values:
        first: dict[str, Any] = {name: fact.values[seed][0] for name, fact in known.items()}
        found[seed] = Run(
            float(first["lr"]), int(first["nu"]), str(first["scale"]), str(first["v_dist"]),
            tuple(read_shapes(str(first["low_rank_shapes"]))), int(first["dense_entries"]),
        )  # fmt: skip
    return found


# -- conditions that all theorems here share --------------------------------------------------------------


def _together(name: str, requires: str, parts: list[Assumption]) -> Assumption:
    """Several conditions as one: what fails or is not recorded is named, else each is said."""
    verdicts = [a.holds for a in parts]
    holds = False if False in verdicts else None if None in verdicts else True
    told = [a for a in parts if a.holds is holds]
    how = "; ".join(a.how.removeprefix("recorded: ") for a in told)
    return Assumption(name, requires, None, holds, f"recorded: {how}")


def _is(value: Fact) -> Callable[[Fact], bool]:
    return lambda noted: noted == value


def _one_value(record: Record, fact: str, of: str, requires: str) -> Assumption:
    """That a fact had one value in every seed; seeds may differ."""
    known = record.fact(fact, of)
    counts = [len(v) for v in known.values.values()]
    holds: bool | None = True if counts and not known.missing else None
    if any(n > 1 for n in counts):
        holds = False
    return Assumption(f"constant {fact}", requires, None, holds, f"recorded: {known}")


def plain_run(record: Record, of: str) -> list[Assumption]:
    """What every theorem here asks of the optimizer, whatever becomes of its scalars."""

    def fact(name: str, requires: str, holds: Callable[[Fact], bool]) -> Assumption:
        return assume_fact(record, name, name, requires, holds, of=of)

    return [
        assume_fact(
            record, "method", "the method", "LOZO or MeZO",
            lambda m: m in ("lozo", "mezo"), of=of,
        ),
        assume_fact(record, "momentum", "no momentum", "beta = 0", _is(0), of=of),
        _together(
            "plain estimate",
            "one direction, central difference, c as it is",
            [
                fact("num_directions", "q = 1", _is(1)),
                fact("one_sided", "central", _is(False)),
                fact("leave_one_out", "no baseline", _is(False)),
                fact("normalize", "not divided", _is(False)),
                fact("c_clip", "not clipped", _is("none")),
            ],
        ),
        _together(
            "plain update",
            "no weight decay, every step made and recorded, nothing rounded away",
            [
                fact("weight_decay", "0", _is(0)),
                fact("skipped_steps", "none", _is(False)),
                fact("unrecorded_steps", "none", _is(0)),
                fact("drifts", "no 16-bit weights in place", _is(False)),
            ],
        ),
        _together(
            "constant settings",
            "one learning rate, one rank, one period throughout",
            [_one_value(record, name, of, "constant") for name in FACTS],
        ),
    ]  # fmt: skip


def orthogonal_v(record: Record, of: str) -> Assumption:
    return assume_fact(
        record, "v_dist", "orthogonal V", "V^T V = n I",
        lambda v: v in ("orthogonal", "none"), of=of,
    )  # fmt: skip


def linear_over(record: Record, of: str) -> Assumption:
    """Whether c is a derivative: measured by `fd_error`, in every seed."""
    name, requires = column("fd_error", of), "|c(eps) - c(eps/2)| / |c| << 1"
    title = "linear over the perturbation"
    if name not in record:
        return Assumption(title, requires, None, None, "not measured: call fd_error(closure)")
    measured = record.frame(name)[name].groupby(level="seed").max().dropna()
    worst = float(measured.max())
    told = record.fact("method", of)
    missing = sorted((set(told.values) | set(told.missing)) - set(measured.index))
    holds: bool | None = None if missing else worst < LINEAR
    how = "two further pairs of forwards"
    if missing:
        how += f"; not measured in {len(missing)} of the seeds"
    return Assumption(title, requires, worst, False if worst >= LINEAR else holds, how)


def exact_c(record: Record, of: str) -> Assumption:
    """Whether c is what its losses would make it in float32: by the dtype of products, else by `quality`."""
    title, requires = "c as computed", "|c - c in float32| / |c| << 1"
    told = record.fact("products", of)
    low = [v for v in told.all if v not in ("float32", "float64")]
    if not low:
        silent = not told.all or bool(told.missing)
        return Assumption(title, requires, None, None if silent else True, f"recorded: {told}")
    name = column("c_error", of)
    if name not in record:
        how = f"products in {', '.join(map(str, low))}; not measured: call quality(closure, batch)"
        return Assumption(title, requires, None, False, how)
    measured = record.frame(name)[name].groupby(level="seed").max().dropna()
    worst = float(measured.max())
    seeds = {s for s, v in told.values.items() if any(x in low for x in v)} | set(told.missing)
    holds: bool | None = None if seeds - set(measured.index) else True
    return Assumption(
        title, requires, worst, False if worst >= LINEAR else holds,
        f"products in {', '.join(map(str, low))}; c beside c in float32",
    )  # fmt: skip
