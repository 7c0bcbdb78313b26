"""The theorems as core guarantees: what is promised of a run, with its settings read off its record."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float

from surefoot.certificate import Certificate, certify, unmeasured
from surefoot.guarantee import Assumption, Guarantee, assume_plain_gradients
from surefoot.listing import lettered
from surefoot.record import Record
from surefoot.zeroth_order import federated_guarantee as federated
from surefoot.zeroth_order._conditions import (
    FACTS,
    exact_c,
    linear_over,
    orthogonal_v,
    plain_run,
    runs_of,
)
from surefoot.zeroth_order._engine.recording import MEAN_SQUARED, column, read_shapes
from surefoot.zeroth_order.bounds import gradient_bound, lozo_contraction
from surefoot.zeroth_order.private_guarantee import descent_certificates

LATEX = (
    r"\frac1K\sum_{k<K}\mathbb{E}\|\nabla f(X^{k\nu})\|^2"
    r" \le \frac{8\Delta_0}{\alpha T} + 8L\alpha C\rho\sigma^2"
)


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
        axis="mean squared gradient norm",
        sense="upper",
        holds_in="expectation",
        bound=promised,
        assumptions=lambda record: (
            short_steps(record),
            orthogonal_v(record, of),
            *assume_plain_gradients(record, of),
            *plain_run(record, of),
            linear_over(record, of),
            exact_c(record, of),
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
        latex=r"\mathbb{E}\|X_{k\nu} - X^*\|^2 = \rho^k\,\|X_0 - X^*\|^2",
        source="derived here in the setting of arXiv 2410.07698",
        quantity=quantity,
        axis="||X_k - X*||^2 over that of the start",
        sense="equal",
        holds_in="expectation",
        bound=promised,
        assumptions=lambda record: (
            one_matrix(record),
            known_law(record),
            exact_c(record, of),
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
    found = []
    if "scalars" in record.fact("protocol").all:
        letters = {federated.ULPS: "F", federated.WIRE: "W", federated.APART: "R"}
        found += [lettered(c, letters[c.quantity]) for c in federated.certificates(record)]
    for of in record.arms("low_rank_shapes"):
        found += [lettered(c, "Z") for c in descent_certificates(record, of=of)]
        found += certificates(record, of=of)
    return found
