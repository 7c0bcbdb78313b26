"""The theorems as core guarantees: what is promised of a run, with its settings read off its record."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from surefoot.certificate import Certificate, certify, unmeasured
from surefoot.guarantee import Assumption, Guarantee, assume_fact, assume_plain_gradients
from surefoot.listing import lettered
from surefoot.record import Fact, Record
from surefoot.zeroth_order._engine.recording import MEAN_SQUARED, column, read_shapes
from surefoot.zeroth_order.bounds import gradient_bound, lozo_contraction

LATEX = (
    r"\frac1K\sum_{k<K}\mathbb{E}\|\nabla f(X^{k\nu})\|^2"
    r" \le \frac{8\Delta_0}{\alpha T} + 8L\alpha C\rho\sigma^2"
)
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


def _orthogonal(record: Record, of: str) -> Assumption:
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


def _exact(record: Record, of: str) -> Assumption:
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


# -- the bound on the gradient ----------------------------------------------------------------------------


def gradient_guarantee(
    quantity: str | None = None,
    *,
    L: float | None,
    sigma2: float | None,
    delta0: float | None,
    how: str = "given by the caller",
    of: str = "",
    trivial: float | None = None,
    name: str | None = None,
) -> Guarantee:
    """(1/K) sum E||grad f||^2 over the starts of K periods is at most the bound, in expectation.

    Settings (learning rate, rank, period, distribution of V, momentum ...) are read off the record, where the
    optimizer has written them.

    Parameters
    ----------
    quantity
        The record's column: at step k nu the mean of ||grad f||^2 over the first k + 1 period starts, as
        `measure_gradient` records it; by default that one.
    L, sigma2, delta0
        Constants of the problem: smoothness, variance of the minibatch gradient over all blocks, f(X_0) - f*.
        None: unknown, and no bound can be computed.
    how
        How they were found.
    of
        Which run, where a record holds several.
    trivial
        What holds without the theorem, for instance 2 L Delta_0 >= ||grad f(X_0)||^2.
    name
        The guarantee's name.
    """
    quantity = quantity or column(MEAN_SQUARED, of)
    constants = None if None in (L, sigma2, delta0) else (L, sigma2, delta0)

    def promised(record: Record) -> Float[np.ndarray, "seeds steps"]:
        if L is None or sigma2 is None or delta0 is None:
            raise ValueError("the bound needs L, sigma2 and delta0, constants of the problem")
        curves = record.curves(quantity)
        rows, runs = [], runs_of(record, of)
        for seed in curves.seeds:
            run = runs[int(seed)]
            _every_start(curves.steps, run.nu, quantity)
            rows.append(
                [
                    gradient_bound(
                        [(m, n) for m, n, _ in run.shapes], [r for _, _, r in run.shapes], run.nu,
                        int(t) + run.nu, L, sigma2, delta0, run.alpha, dense=run.dense, scale=run.scale,
                    ).value
                    for t in curves.steps
                ]
            )  # fmt: skip
        return np.array(rows)

    def short_steps(record: Record) -> Assumption:
        title, requires = "short steps", "0 < alpha <= alpha_max"
        if L is None:
            return Assumption(title, requires, None, None, "L is not known")
        rates = record.fact("lr", of)
        if not rates.values or any(record.fact(f, of).missing for f in FACTS):
            return Assumption(title, requires, None, None, "not recorded in every seed")
        ratios = []
        for seed, run in runs_of(record, of).items():
            limit = gradient_bound(
                [(m, n) for m, n, _ in run.shapes], [r for _, _, r in run.shapes], run.nu, run.nu,
                L, 0.0, 1.0, dense=run.dense, scale=run.scale,
            ).alpha_max  # fmt: skip
            ratios += [float(rate) / limit for rate in rates.values[seed]]
        return Assumption(
            title, requires, max(ratios), min(ratios) > 0 and max(ratios) <= 1 + 1e-12,
            f"alpha / alpha_max, the rate recorded, constants {how}",
        )  # fmt: skip

    return Guarantee(
        name=name or f"{quantity}: mean squared gradient",
        statement=(
            "(1/K) sum_k E||grad f(X^{k nu})||^2 <= 8 Delta_0/(alpha T) + 8 L alpha C rho sigma^2, T = K nu"
            + ("" if constants is None else f"; L = {L:.4g}, sigma^2 = {sigma2:.4g}, Delta_0 = {delta0:.4g}")
        ),
        latex=LATEX,
        source="in the setting of arXiv 2410.07698; constants derived here",
        quantity=quantity,
        sense="upper",
        holds_in="expectation",
        bound=promised,
        assumptions=lambda record: (
            short_steps(record),
            _orthogonal(record, of),
            *assume_plain_gradients(record, of),
            *plain_run(record, of),
            linear_over(record, of),
            _exact(record, of),
        ),
        trivial=trivial,
    )  # fmt: skip


def _every_start(steps: np.ndarray, nu: int, quantity: str) -> None:
    if list(steps) != list(range(0, nu * len(steps), nu)):
        raise ValueError(
            f"{quantity} must hold the mean over the period starts so far at each of the steps 0, {nu}, "
            f"{2 * nu}, ..., as measure_gradient records it; it has {[int(s) for s in steps[:4]]}"
        )


# -- the exact law ----------------------------------------------------------------------------------------


def contraction_guarantee(
    quantity: str, *, of: str = "", tolerance: float = 0.05, name: str | None = None
) -> Guarantee:
    """The exact law on f = ||X - X*||^2 / 2 of one matrix: an equality in expectation.

    The column's steps are whole periods. Settings are read off the record.

    Parameters
    ----------
    quantity
        The record's column: ||X - X*||^2 relative to the start, after each period.
    of
        Which run, where a record holds several.
    tolerance
        Half-width of the equality, relative.
    name
        The guarantee's name.
    """

    def promised(record: Record) -> Float[np.ndarray, "seeds steps"]:
        curves = record.curves(quantity)
        rows, runs = [], runs_of(record, of)
        for seed in curves.seeds:
            run = runs[int(seed)]
            m, n, r = run.shapes[0] if run.shapes else (1, max(run.dense, 1), 1)
            # Where no law is known nothing is promised, and the other law stands in its place.
            v_dist = run.v_dist if run.nu == 1 and run.v_dist == "gaussian" else "orthogonal"
            factor = lozo_contraction(m, n, r, run.alpha, run.nu, v_dist)
            rows.append(factor ** curves.steps.astype(float))
        return np.array(rows)

    def one_matrix(record: Record) -> Assumption:
        known = [record.fact(name, of) for name in ("low_rank_shapes", "dense_entries")]
        shapes = [read_shapes(str(v)) for v in known[0].all]
        fails = any(len(each) != 1 for each in shapes) or any(v != 0 for v in known[1].all)
        silent = not all(k.all and not k.missing for k in known)
        holds = False if fails else None if silent else True
        return Assumption(
            "one matrix", "a single low-rank matrix", None, holds, f"recorded: {known[0]}"
        )

    def known_law(record: Record) -> Assumption:
        nu, v = record.fact("nu", of), record.fact("v_dist", of)
        fails = any(v != "orthogonal" for v in v.all) and any(n != 1 for n in nu.all)
        silent = not (nu.all and v.all) or bool(nu.missing or v.missing)
        holds = False if fails else None if silent else True
        how = f"recorded: {v}, {nu}"
        return Assumption("a closed law", "orthogonal V, or nu = 1", None, holds, how)

    return Guarantee(
        name=name or f"{quantity}: exact law",
        statement="E||X_k - X*||^2 = factor^k ||X_0 - X*||^2 after k periods (lozo_contraction)",
        source="derived here in the setting of arXiv 2410.07698",
        quantity=quantity,
        sense="equal",
        holds_in="expectation",
        bound=promised,
        assumptions=lambda record: (
            one_matrix(record),
            known_law(record),
            _exact(record, of),
            *assume_plain_gradients(record, of),
            *plain_run(record, of),
        ),
        tolerance=tolerance,
    )


# -- the one road -----------------------------------------------------------------------------------------


def certificates(
    record: Record,
    *,
    L: float | None = None,
    sigma2: float | None = None,
    delta0: float | None = None,
    how: str = "given by the caller",
    of: str = "",
    confidence: float = 0.99,
) -> list[Certificate]:
    """What is promised of the runs in a record, and what was measured: the gradient theorem.

    Parameters
    ----------
    record
        Into which the optimizers wrote.
    L, sigma2, delta0, how
        Constants of the problem, and how they were found, as in `gradient_guarantee`.
    of
        Which run, where the record holds several.
    confidence
        As in `surefoot.certify`.
    """
    guarantee = gradient_guarantee(
        L=L, sigma2=sigma2, delta0=delta0, how=how, of=of, name="mean squared gradient"
    )
    unknown = [k for k, v in (("L", L), ("sigma2", sigma2), ("delta0", delta0)) if v is None]
    if unknown:
        todo = f"give {', '.join(unknown)}: constants of the problem"
    elif guarantee.quantity not in record:
        todo = (
            "call measure_gradient(loss) before the first step and wherever t is a multiple of nu"
        )
    else:
        return [certify(record, guarantee, confidence)]
    return [unmeasured(record, guarantee, todo)]


def of_record(record: Record, **asked: Any) -> list[Certificate]:
    """What a record alone says of the runs in it (`surefoot.certificates`)."""
    from surefoot.zeroth_order import federated_guarantee as federated
    from surefoot.zeroth_order.private_guarantee import descent_certificates

    found = []
    if "scalars" in record.fact("protocol").all:
        letters = {federated.ULPS: "F", federated.WIRE: "W", federated.APART: "R"}
        found += [lettered(c, letters[c.quantity]) for c in federated.certificates(record)]
    for of in record.arms("low_rank_shapes"):
        found += [lettered(c, "Z") for c in descent_certificates(record, of=of)]
        found += certificates(record, of=of)
    return found
