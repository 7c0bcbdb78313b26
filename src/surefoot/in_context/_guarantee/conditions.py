"""Conditions of the theorems, as the record has them: facts by name, and columns."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from surefoot.guarantee import Assumption, assume_fact
from surefoot.in_context.prompts import LAW
from surefoot.record import Fact, Record

Column = Float[np.ndarray, "seeds 1"]
SYMMETRIC = 1e-9
"""|A - A'| / |A| that counts as rounding."""


def sizes(
    record: Record, seeds: list[int], names: tuple[str, ...] = ("d", "n", "loops")
) -> list[tuple[int, ...] | None]:
    """These facts of each seed; None where one is not recorded, has two values or is no size."""
    found: list[tuple[int, ...] | None] = []
    for seed in seeds:
        values = [record.fact(name).values.get(seed, ()) for name in names]
        whole = [int(v[0]) for v in values if len(v) == 1 and _whole(v[0])]
        found.append(tuple(whole) if len(whole) == len(names) else None)
    return found


def refuse_second_run(record: Record, seed: int, quantity: str) -> None:
    """Two runs under one seed would be judged as one.

    Raises
    ------
    ValueError
        The seed has that quantity already.
    """
    if quantity in record.of_seed(seed):
        raise ValueError(
            f"record has a run of seed {seed} already; give each run a seed of its own, or another record"
        )


def constant(record: Record, quantity: str, seeds: list[int]) -> Column:
    """The last value of a column for each of these seeds; NaN where it has none."""
    if quantity not in record:
        return np.full((len(seeds), 1), np.nan)
    known = dict(
        zip(
            sorted({int(s) for s in record.curves(quantity).seeds}),
            record.constant(quantity),
            strict=True,
        )
    )
    return np.array([[known.get(seed, np.nan)] for seed in seeds])


def known_sizes(record: Record) -> tuple[Assumption, ...]:
    """d, n and loops, without which there is no bound: one of each."""
    return tuple(
        assume_fact(
            record, name, f"{name} known", "one whole number, at least 1", lambda v: _whole(v)
        )
        for name in ("d", "n", "loops")
    )


def _whole(value: Fact) -> bool:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number and float(value) >= 1 and float(value).is_integer()


def law(record: Record) -> Assumption:
    """The prompts are of the theorems' law."""
    return assume_fact(record, "law", "Gaussian prompts", LAW, lambda v: v == LAW)


def noiseless(record: Record) -> Assumption:
    """The labels have no noise."""
    return assume_fact(record, "noise", "labels without noise", "noise = 0", lambda v: v == 0)


def tied(record: Record) -> Assumption:
    """One layer is looped."""
    return assume_fact(record, "tied", "one looped layer", "tied = True", lambda v: v is True)


def isotropic(record: Record) -> Assumption:
    """S = I."""
    return assume_fact(
        record, "sigma", "isotropic features", "S = identity", lambda v: v == "identity"
    )


def method(record: Record, wanted: str) -> Assumption:
    """What moved A."""
    return assume_fact(record, "method", wanted, f"method = {wanted}", lambda v: v == wanted)


def start(record: Record) -> Assumption:
    """Where it started."""
    return assume_fact(record, "start", "start at zero", "A = 0", lambda v: v == "A = 0")


def no_bias(record: Record) -> Assumption:
    """u = 0."""
    return assume_fact(record, "u", "no bias", "u = 0", lambda v: v == "zero")


def column(
    record: Record,
    quantity: str,
    name: str,
    requires: str,
    holds: Callable[[float], bool],
    *,
    worst: Callable[[Column], float] = np.max,
) -> Assumption:
    """A condition on a measured column: of its worst value over the seeds; None where a seed has none.

    Parameters
    ----------
    quantity
        The column; its last value counts.
    name, requires
        As in `Assumption`.
    holds
        The condition.
    worst
        Which of the seeds' values is the worst.
    """
    values = constant(record, quantity, record.seeds or [0])
    if np.isnan(values).any():
        seen = values[~np.isnan(values)]
        failed = bool(seen.size) and not holds(float(worst(seen)))
        return Assumption(name, requires, None, False if failed else None, f"column {quantity}")
    value = float(worst(values))
    return Assumption(name, requires, value, holds(value), f"column {quantity}, worst seed")


def symmetric(record: Record) -> Assumption:
    """A = A'."""
    return column(
        record,
        "asymmetry",
        "symmetric A",
        f"|A - A'| <= {SYMMETRIC:g} |A|",
        lambda v: v <= SYMMETRIC,
    )


def definite(record: Record) -> Assumption:
    """A has positive eigenvalues."""
    return column(
        record, "least_eigenvalue", "positive definite A", "least eigenvalue > 0", lambda v: v > 0,
        worst=np.min,
    )  # fmt: skip
