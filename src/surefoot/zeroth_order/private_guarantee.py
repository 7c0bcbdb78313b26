"""Descent of a private run as a core guarantee (claim Z of `surefoot.certificates`)."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from surefoot.certificate import Certificate, certify, unmeasured
from surefoot.guarantee import Assumption, Guarantee, assume_fact
from surefoot.record import Record
from surefoot.zeroth_order._conditions import exact_c, linear_over, plain_run
from surefoot.zeroth_order._engine.recording import SQUARED_DIRECTION, WEIGHED, column, read_shapes
from surefoot.zeroth_order.private_bounds import second_moment

LATEX = (
    r"\frac1T\sum_{t<T}\mathbb{E}\,G_t^\top S_V\bar G_t \le \frac{\Delta_0}{\alpha T}"
    r" + \frac{L\alpha}{2T}\sum_{t<T}\mathbb{E}\,c_t^2\|Z_t\|^2"
)
MECHANISM = ("noise_multiplier", "clip_norm", "sample_rate", "population")
TODO = "call measure_descent(losses) before every step, where per-example gradients fit"


def descent_guarantee(
    quantity: str | None = None,
    *,
    L: float | None,
    delta0: float | None,
    how: str = "given by the caller",
    of: str = "",
    trivial: float | None = None,
    closed: bool = False,
    name: str = "descent under clipping and noise",
) -> Guarantee:
    """(1/T) sum E G^T S_V Gbar is at most `lozo_private_bound`, in expectation over seeds.

    The settings are read off the record; c^2 ||Z||^2 too, where the run recorded ||Z||^2.

    Parameters
    ----------
    quantity
        The record's column: at step t the mean over the steps so far, as `measure_descent` records it.
    L, delta0, how
        Smoothness and f(X_0) - inf f, and how they were found; None: unknown.
    of
        Which run, where a record holds several.
    trivial
        What holds without the theorem, for instance 2 L Delta_0.
    closed
        Take the closed bound even where the record has what the other needs.
    name
        The guarantee's name.
    """
    quantity = quantity or column(WEIGHED, of)
    squared = column(SQUARED_DIRECTION, of)

    def promised(record: Record) -> Float[np.ndarray, "seeds steps"]:
        if L is None or delta0 is None:
            raise ValueError("the bound needs L and delta0, constants of the problem")
        curves = record.curves(quantity)
        if list(curves.steps) != list(range(len(curves.steps))):
            raise ValueError(f"{quantity} must be measured before every step from the first")
        counts = curves.steps + 1.0
        rows = []
        for seed in curves.seeds:
            alpha = float(record.fact("lr", of).values[int(seed)][0])
            if squared in record and not closed:
                moment = _running(record, of, int(seed), counts)
            else:
                moment = np.full(len(counts), _closed(record, of, int(seed)))
            rows.append(delta0 / (alpha * counts) + L * alpha / 2 * moment)
        return np.array(rows)

    def known_constants(record: Record) -> Assumption:
        known = None if L is None or delta0 is None else True
        return Assumption(
            "constants", "f L-smooth, f(X_0) - inf f <= Delta_0, both public", None, known,
            how if known else "L or Delta_0 is not known",
        )  # fmt: skip

    return Guarantee(
        name=name,
        statement="(1/T) sum_t E G_t^T S_V Gbar_t <= Delta_0/(alpha T) + (L alpha/2)(1/T) sum_t "
        "E[c_t^2 ||Z_t||^2]",
        latex=LATEX,
        source="in the setting of arXiv 2410.07698 and 2310.09639; derived here",
        quantity=quantity,
        sense="upper",
        holds_in="expectation",
        bound=promised,
        assumptions=lambda record: (
            known_constants(record),
            *mechanism_of(record, of),
            *plain_run(record, of),
            linear_over(record, of),
            exact_c(record, of),
        ),
        trivial=trivial,
    )


def mechanism_of(record: Record, of: str) -> tuple[Assumption, ...]:
    """What the theorem asks of the release, as the run noted it."""
    sites: tuple[Assumption, ...] = ()
    if record.fact("participation", of).all:
        # Of sites that sit out, c is the sum of the others over another constant than q N.
        sites = (
            assume_fact(
                record, "participation", "participation", "every site in every round",
                lambda v: v == "all", of=of,
            ),
        )  # fmt: skip
    return (
        *sites,
        assume_fact(
            record, "scale", "unit scale", "Z has covariance S_V", lambda v: v == "unit", of=of
        ),
        assume_fact(
            record, "clipping", "clipped per example", "each c_i within C",
            lambda v: v == "per example", of=of,
        ),
        assume_fact(
            record, "sampling", "Poisson batches", "each example by its own coin",
            lambda v: v == "poisson", of=of,
        ),
        assume_fact(
            record, "divisor", "constant divisor", "c = s / (q N)", lambda v: v == "constant", of=of
        ),
    )  # fmt: skip


def _running(
    record: Record, of: str, seed: int, counts: Float[np.ndarray, " steps"]
) -> Float[np.ndarray, " steps"]:
    """The mean of c^2 ||Z||^2 over the steps up to each."""
    names = column("c", of), column(SQUARED_DIRECTION, of)
    frame = record.frame(*names).loc[seed]
    squares = frame[names[0]].to_numpy() ** 2 * frame[names[1]].to_numpy()
    found: Float[np.ndarray, " steps"] = np.cumsum(squares[: len(counts)]) / counts
    return found


def _closed(record: Record, of: str, seed: int) -> float:
    clip, sigma, q, population = (
        float(record.fact(name, of).values[seed][0])
        for name in ("clip_norm", "noise_multiplier", "sample_rate", "population")
    )
    shapes = read_shapes(str(record.fact("low_rank_shapes", of).values[seed][0]))
    dense = int(record.fact("dense_entries", of).values[seed][0])
    d = sum(m * n for m, n, _ in shapes) + dense
    return d * second_moment(clip, sigma, q, int(population))


def descent_certificates(
    record: Record,
    *,
    L: float | None = None,
    delta0: float | None = None,
    how: str = "given by the caller",
    of: str = "",
    confidence: float = 0.99,
) -> list[Certificate]:
    """The descent theorem of the private runs in a record; none of runs without a mechanism.

    Parameters
    ----------
    record
        Into which the optimizers wrote.
    L, delta0, how
        As in `descent_guarantee`.
    of
        Which run, where the record holds several.
    confidence
        As in `surefoot.certify`.
    """
    if not record.fact("mechanism", of).all:
        return []
    trivial = None if L is None or delta0 is None else 2 * L * delta0
    guarantee = descent_guarantee(L=L, delta0=delta0, how=how, of=of, trivial=trivial)
    if guarantee.quantity not in record:
        return [unmeasured(record, guarantee, TODO)]
    if L is None or delta0 is None:
        missing = [k for k, v in (("L", L), ("delta0", delta0)) if v is None]
        return [
            unmeasured(record, guarantee, f"give {', '.join(missing)}: constants of the problem")
        ]
    return [certify(record, guarantee, confidence)]
