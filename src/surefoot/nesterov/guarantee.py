"""The promised rates as guarantees, which read what ran off its record; and the ledger's certificate.

In the setting of arXiv 2410.08395 and 2302.05515; constants derived here. Each promise is about
f(x_n) - f*, x_n the iterate and not the point y_n of the gradient.
"""

from __future__ import annotations

import dataclasses
from math import inf

import numpy as np
from jaxtyping import Float

from surefoot.guarantee import Assumption, Guarantee, assume_fact
from surefoot.nesterov._guarantee import conditions
from surefoot.nesterov._guarantee.conditions import NOISE_LAW as NOISE_LAW
from surefoot.nesterov._guarantee.conditions import ROUNDING
from surefoot.nesterov._ledger.certificate import LedgerCertificate as LedgerCertificate
from surefoot.nesterov.bounds import agnes_bound, decreasing_bound
from surefoot.nesterov.parameters import AgnesParams
from surefoot.nesterov.strongly_convex import strongly_convex_bound
from surefoot.record import Record

SOURCE = "in the setting of arXiv 2302.05515 and 2410.08395; constants derived here"
GAP = "f(x_n) - f*"
STATEMENT = "E f(x_n) - f* <= (1-s)^n L_0 + (L eta^2 + gamma^2) sigma_a^2 / (2s) (1 - (1-s)^n)"
LATEX = (
    r"\mathbb{E} f(x_n) - f^* \le (1-s)^n L_0"
    r" + \frac{(L\eta^2 + \gamma^2)\,\sigma_a^2}{2s}\left(1-(1-s)^n\right)"
)
DECREASING = "E f(x_n) - f* <= ((n0-1)(n0-2) L_0 + 4 n sigma_a^2/mu) / ((n+n0-1)(n+n0-2))"
DECREASING_LATEX = (
    r"\mathbb{E} f(x_n) - f^* \le"
    r" \frac{(n_0-1)(n_0-2) L_0 + 4n\sigma_a^2/\mu}{(n+n_0-1)(n+n_0-2)}"
)

STRONGLY_CONVEX = (
    "f(x_n) - f* <= min((1-s)^n L_0, r^(n-1) (C_f (f(x_0) - f*) + C_d mu/2 |x_0 - x*|^2)), "
    "r = (1-s)(1-t^2), t^2 (3-t) = s (1+t)"
)
STRONGLY_CONVEX_LATEX = (
    r"f(x_n) - f^* \le r^{n-1} \left(C_f (f(x_0) - f^*) + C_d \tfrac{\mu}{2} |x_0 - x^*|^2\right),"
    r"\quad r = (1-s)(1-t^2),\ t^2 (3-t) = s (1+t)"
)


def accelerated_rate(
    quantity: str = GAP,
    *,
    mu: float | None = None,
    L: float | None = None,
    dist0_sq: float | None = None,
    sigma_mult: float | None = None,
    sigma_add: float | None = None,
    how: str | None = None,
    of: str = "",
    name: str = "accelerated rate",
    every_run: bool = False,
) -> Guarantee:
    """The rate of NAG and AGNES: (1-s)^n L_0, s = (1-rho)/(1+rho), and a floor of additive noise.

    eta, alpha and rho are read off the record. They belong to one mu' (`AgnesParams.of`): the rate is
    promised if f aims strongly with mu >= mu' and the step is short enough for L and the noise. Minimisers
    are affine, or the noise is zero and the drift term of the ledger not positive.

    Parameters
    ----------
    quantity
        Where the record holds f(x_n) - f*; its value at n = 0 is read from it.
    mu, L
        Strong aiming and smoothness of f; None: nobody knows them, the certificate then says so.
    dist0_sq
        |x_0 - pi(x_0)|^2, for L_0 = f(x_0) - f* + mu'/2 dist0_sq; None: L_0 = 2 (f(x_0) - f*), which is
        never smaller under strong aiming.
    sigma_mult, sigma_add
        sigma_m and sigma_a with E|g - grad f|^2 <= sigma_a^2 + sigma_m^2 |grad f|^2. None: as whatever drew
        the noise recorded it. Given although a smaller one was recorded: the larger is promised for;
        given smaller than recorded: not promised.
    how
        How the constants of the problem were found; None: they are taken on trust, and nothing that
        rests on them is called true.
    of
        Which of several that ran, as in `Record.note`.
    name
        The name of the claim.
    every_run
        The quantity is itself an expectation, or there is no noise: compared without statistics.

    Returns
    -------
    Guarantee
        Of the expectation, or of every run. Its bound raises ValueError where a hyperparameter was not
        recorded, or the quantity not at step 0.
    """

    def bound(record: Record) -> Float[np.ndarray, "seeds steps"]:
        curves = record.curves(quantity)
        rows = []
        for seed, gap0 in zip(curves.seeds, conditions.start(record, quantity), strict=True):
            own = conditions.numbers(record, of, int(seed), ("eta", "alpha", "rho"))
            sigma = sigma_add
            if sigma is None:
                sigma = conditions.number(record, of, int(seed), "sigma_add")
            if own is None or sigma is None:
                rows.append(np.full(len(curves.steps), inf))
                continue
            params = AgnesParams.of(*own)
            mu_run = params.mu
            if not params.gamma:
                rows.append(np.full(len(curves.steps), inf))
                continue
            distance = 2 * gap0 / mu_run if dist0_sq is None else dist0_sq
            rows.append(
                agnes_bound(
                    curves.steps, params, gap0, distance, mu_run,
                    (1 / params.eta if params.eta else 0.0) if L is None else L, sigma_add=sigma,
                )
            )  # fmt: skip
        return np.array(rows)

    def assumptions(record: Record) -> tuple[Assumption, ...]:
        found = conditions.runs_of(record, of)
        return (
            *conditions.method(record, of, ("AGNES", "NAG")),
            conditions.aiming(found, mu, how),
            conditions.short_steps(record, of, found, L, sigma_mult, how),
            conditions.noise_law(record, of, sigma_mult, sigma_add, how),
            conditions.infimum(record, quantity, how),
        )

    return Guarantee(
        name=name, statement=STATEMENT, latex=LATEX, source=SOURCE, quantity=quantity, sense="upper",
        axis=GAP,
        holds_in="every run" if every_run else "expectation", bound=bound, assumptions=assumptions,
        trivial=lambda record: conditions.start(record, quantity)[:, None],
    )  # fmt: skip


def curved_rate(
    quantity: str = GAP,
    *,
    dist0_sq: float | None = None,
    of: str = "",
    name: str = "rate on curved minimisers",
) -> Guarantee:
    """(1-s)^n L_0 carried over to a curved manifold under multiplicative noise: observed, not derived.

    Parameters
    ----------
    quantity, dist0_sq, of, name
        As in `accelerated_rate`.
    """
    derived = accelerated_rate(quantity, dist0_sq=dist0_sq, sigma_add=0.0, of=of, name=name)
    return dataclasses.replace(
        derived,
        statement="E f(x_n) - f* <= (1-s)^n L_0",
        latex=r"\mathbb{E} f(x_n) - f^* \le (1-s)^n L_0",
        source="observed, not derived: multiplicative noise on a curved manifold",
        assumptions=lambda record: conditions.method(record, of, ("AGNES", "NAG")),
        heuristic=True,
    )


def strongly_convex_rate(
    quantity: str = GAP,
    *,
    mu: float | None = None,
    L: float | None = None,
    dist0_sq: float | None = None,
    sigma_mult: float | None = None,
    sigma_add: float | None = None,
    how: str | None = None,
    of: str = "",
    name: str = "rate for strongly convex functions",
) -> Guarantee:
    """The tighter rate of NAG where f is strongly convex, `strongly_convex_bound`, in every run.

    eta, alpha and rho are read off the record and belong to one mu', as in `accelerated_rate`. Nobody can see
    on a run that f is convex: it is promised on the caller's word for mu.

    Parameters
    ----------
    quantity, of, name
        As in `accelerated_rate`.
    mu, L
        Strong convexity and smoothness of f; None: nobody knows them, the certificate then says so.
    dist0_sq
        |x_0 - x*|^2; None: 2 (f(x_0) - f*) / mu', which is never smaller.
    sigma_mult, sigma_add
        The noise of the gradients, where nothing recorded it; nothing is promised above 0.
    how
        How the constants of the problem were found; None: they are taken on trust, and nothing that
        rests on them is called true.

    Returns
    -------
    Guarantee
        Of every run. Its bound raises ValueError as that of `accelerated_rate`.
    """

    def bound(record: Record) -> Float[np.ndarray, "seeds steps"]:
        curves = record.curves(quantity)
        rows = []
        for seed, gap0 in zip(curves.seeds, conditions.start(record, quantity), strict=True):
            own = conditions.numbers(record, of, int(seed), ("eta", "alpha", "rho"))
            params = None if own is None else AgnesParams.of(*own)
            if params is None or not params.eta:
                rows.append(np.full(len(curves.steps), inf))
                continue
            mu_run = params.s**2 / params.eta
            distance = 2 * gap0 / mu_run if dist0_sq is None else dist0_sq
            rows.append(strongly_convex_bound(curves.steps, gap0, distance, mu_run, params.eta))
        return np.array(rows)

    def assumptions(record: Record) -> tuple[Assumption, ...]:
        found = conditions.runs_of(record, of)
        return (
            *conditions.method(record, of, ("AGNES", "NAG")),
            conditions.same_steps(record, of, found),
            conditions.aiming(found, mu, how, "f is mu-strongly convex"),
            conditions.short_steps(record, of, found, L, 0.0, how),
            conditions.without(record, of, "sigma_mult", sigma_mult, how),
            conditions.without(record, of, "sigma_add", sigma_add, how),
            conditions.infimum(record, quantity, how),
        )

    return Guarantee(
        name=name, statement=STRONGLY_CONVEX, latex=STRONGLY_CONVEX_LATEX,
        source="rate of arXiv 1408.3595 and 1801.04492; closed form and constants derived here",
        quantity=quantity, sense="upper", holds_in="every run", bound=bound, assumptions=assumptions,
        trivial=lambda record: conditions.start(record, quantity)[:, None],
    )  # fmt: skip


def decreasing_rate(
    quantity: str = GAP,
    *,
    mu: float | None = None,
    L: float | None = None,
    dist0_sq: float | None = None,
    sigma_mult: float | None = None,
    sigma_add: float | None = None,
    how: str | None = None,
    of: str = "",
    name: str = "rate of a decreasing step",
    every_run: bool = False,
) -> Guarantee:
    """The rate 1/n of DecreasingNAG under additive noise, with the mu and L that it ran with.

    Parameters
    ----------
    quantity, dist0_sq, how, of, name, every_run
        As in `accelerated_rate`.
    mu, L
        Strong aiming and smoothness of f: at least the mu, at most the L that the optimizer ran with.
    sigma_mult, sigma_add
        As in `accelerated_rate`; multiplicative noise is not covered, nothing is promised above 0.

    Returns
    -------
    Guarantee
        As `accelerated_rate`.
    """

    def bound(record: Record) -> Float[np.ndarray, "seeds steps"]:
        curves = record.curves(quantity)
        rows = []
        for seed, gap0 in zip(curves.seeds, conditions.start(record, quantity), strict=True):
            own = conditions.numbers(record, of, int(seed), ("mu", "L"))
            sigma = sigma_add
            if sigma is None:
                sigma = conditions.number(record, of, int(seed), "sigma_add")
            if own is None or sigma is None:
                rows.append(np.full(len(curves.steps), inf))
                continue
            mu_run, L_run = own
            distance = 2 * gap0 / mu_run if dist0_sq is None else dist0_sq
            rows.append(
                decreasing_bound(curves.steps, gap0, distance, mu_run, L_run, sigma_add=sigma)
            )
        return np.array(rows)

    def assumptions(record: Record) -> tuple[Assumption, ...]:
        aims = assume_fact(
            record, "mu", "mu-strong aiming", f"mu of the run <= {conditions.shown(mu)} of f",
            lambda v: mu is None or float(v) <= mu * (1 + ROUNDING), of=of,
        )  # fmt: skip
        smooth = assume_fact(
            record, "L", "L-smooth", f"L of the run >= {conditions.shown(L)} of f",
            lambda v: L is None or float(v) >= L * (1 - ROUNDING), of=of,
        )  # fmt: skip
        return (
            *conditions.method(record, of, ("DecreasingNAG",)),
            conditions.on_trust(aims, None if mu is None else how),
            conditions.on_trust(smooth, None if L is None else how),
            conditions.noise_law(record, of, sigma_mult, sigma_add, how),
            conditions.without(record, of, "sigma_mult", sigma_mult, how),
            conditions.infimum(record, quantity, how),
        )

    return Guarantee(
        name=name, statement=DECREASING, latex=DECREASING_LATEX, source=SOURCE, quantity=quantity, axis=GAP,
        sense="upper", holds_in="every run" if every_run else "expectation", bound=bound,
        assumptions=assumptions, trivial=lambda record: conditions.start(record, quantity)[:, None],
    )  # fmt: skip
