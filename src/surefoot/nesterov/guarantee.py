"""The promised rates as guarantees, which read what ran off its record; and the ledger's certificate.

In the setting of arXiv 2410.08395 and 2302.05515; constants derived here. Each promise is about
f(x_n) - f*, x_n the iterate and not the point y_n of the gradient.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from itertools import product
from math import inf

import numpy as np
from jaxtyping import Float

from surefoot.guarantee import Assumption, Guarantee, assume_fact
from surefoot.nesterov._ledger.certificate import LedgerCertificate as LedgerCertificate
from surefoot.nesterov.bounds import agnes_bound, decreasing_bound
from surefoot.nesterov.parameters import AgnesParams
from surefoot.record import Record

SOURCE = "in the setting of arXiv 2302.05515 and 2410.08395; constants derived here"
GAP = "f(x_n) - f*"
NOISE_LAW = "noise within its law"
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
ROUNDING = 1e-9


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
        for seed, gap0 in zip(curves.seeds, _start(record, quantity), strict=True):
            own = _numbers(record, of, int(seed), ("eta", "alpha", "rho"))
            sigma = sigma_add
            if sigma is None:
                sigma = _number(record, of, int(seed), "sigma_add")
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
        found = _runs(record, of)
        return (
            *_method(record, of, ("AGNES", "NAG")),
            _aiming(found, mu, how),
            _short_steps(record, of, found, L, sigma_mult, how),
            _noise_law(record, of, sigma_mult, sigma_add, how),
            _infimum(record, quantity, how),
        )

    return Guarantee(
        name=name, statement=STATEMENT, latex=LATEX, source=SOURCE, quantity=quantity, sense="upper",
        holds_in="every run" if every_run else "expectation", bound=bound, assumptions=assumptions,
        trivial=lambda record: _start(record, quantity)[:, None],
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
        assumptions=lambda record: _method(record, of, ("AGNES", "NAG")),
        heuristic=True,
    )


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
        for seed, gap0 in zip(curves.seeds, _start(record, quantity), strict=True):
            own = _numbers(record, of, int(seed), ("mu", "L"))
            sigma = sigma_add
            if sigma is None:
                sigma = _number(record, of, int(seed), "sigma_add")
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
            record, "mu", "mu-strong aiming", f"mu of the run <= {_told(mu)} of f",
            lambda v: mu is None or float(v) <= mu * (1 + ROUNDING), of=of,
        )  # fmt: skip
        smooth = assume_fact(
            record, "L", "L-smooth", f"L of the run >= {_told(L)} of f",
            lambda v: L is None or float(v) >= L * (1 - ROUNDING), of=of,
        )  # fmt: skip
        return (
            *_method(record, of, ("DecreasingNAG",)),
            _on_trust(aims, None if mu is None else how),
            _on_trust(smooth, None if L is None else how),
            _noise_law(record, of, sigma_mult, sigma_add, how),
            _no_multiplicative(record, of, sigma_mult, how),
            _infimum(record, quantity, how),
        )

    return Guarantee(
        name=name, statement=DECREASING, latex=DECREASING_LATEX, source=SOURCE, quantity=quantity,
        sense="upper", holds_in="every run" if every_run else "expectation", bound=bound,
        assumptions=assumptions, trivial=lambda record: _start(record, quantity)[:, None],
    )  # fmt: skip


def _start(record: Record, quantity: str) -> Float[np.ndarray, " seeds"]:
    curves = record.curves(quantity)
    if not len(curves.steps) or curves.steps[0] != 0:
        raise ValueError(
            f"{quantity!r} must be recorded at step 0 in every seed: L_0 is read from it"
        )
    found: Float[np.ndarray, " seeds"] = np.maximum(curves.values[:, 0], 0.0)
    return found


def _number(record: Record, of: str, seed: int, name: str) -> float | None:
    """One recorded number; None where several were recorded, ValueError where none was."""
    values = record.fact(name, of).values.get(seed, ())
    if not values:
        whose = f" of {of!r}" if of else ""
        raise ValueError(
            f"{name}{whose} was not recorded for seed {seed}; what ran must note it in the record"
        )
    return float(values[0]) if len(values) == 1 else None


def _numbers(
    record: Record, of: str, seed: int, names: tuple[str, ...]
) -> tuple[float, ...] | None:
    found = [_number(record, of, seed, name) for name in names]
    return None if None in found else tuple(v for v in found if v is not None)


Runs = Mapping[int, list[AgnesParams]]


def _runs(record: Record, of: str) -> Runs | None:
    """The constants of every run, by seed; None where a seed says nothing of them."""
    known = [record.fact(name, of) for name in ("eta", "alpha", "rho")]
    if any(k.missing or not k.all for k in known):
        return None
    return {
        seed: [
            AgnesParams.of(float(eta), float(alpha), float(rho))
            for eta, alpha, rho in product(*(k.values[seed] for k in known))
        ]
        for seed in known[0].values
    }


def _method(record: Record, of: str, names: tuple[str, ...]) -> tuple[Assumption, ...]:
    """What the theorem asks of the optimizer, as it noted it."""

    def fact(name: str, title: str, requires: str, wanted: Callable[[object], bool]) -> Assumption:
        return assume_fact(record, name, title, requires, wanted, of=of)

    return (
        fact("optimizer", "the method", " or ".join(names), lambda v: v in names),
        fact("start", "from rest", "the velocity is 0 at n = 0", lambda v: v == "rest"),
        fact(
            "hyperparameters_changed",
            "the same hyperparameters at every step",
            "no change",
            lambda v: v is False,
        ),
        fact("weight_decay", "no weight decay", "0; put it into f", lambda v: v == 0),
        fact("maximize", "a descent", "maximize=False", lambda v: v is False),
        fact(
            "all_parameters", "every parameter stepped", "no gradient missing", lambda v: v is True
        ),
        *(
            [fact("may_skip_steps", "no step skipped", "no GradScaler", lambda v: v is False)]
            if record.fact("may_skip_steps", of).all
            else []
        ),
    )


def _told(value: float | None) -> str:
    return "not known" if value is None else f"{value:.6g}"


def _on_trust(a: Assumption, how: str | None) -> Assumption:
    """A condition that rests on a constant of the problem is true only if it is said how it was found."""
    told = "nobody says how the constant of f was found" if how is None else f"constant of f: {how}"
    holds = None if a.holds and how is None else a.holds
    return dataclasses.replace(a, holds=holds, how=f"{a.how}; {told}")


def _aiming(found: Runs | None, mu: float | None, how: str | None) -> Assumption:
    needed = max(p.mu for each in found.values() for p in each) if found else None
    holds = None
    if needed is not None and mu is not None:
        holds = needed <= mu * (1 + ROUNDING)
    return _on_trust(
        Assumption(
            "mu-strong aiming",
            f"mu' of eta, alpha, rho <= mu = {_told(mu)}",
            needed,
            holds,
            "recorded: eta, alpha, rho" if found else "eta, alpha, rho not recorded",
        ),
        how,
    )


def _short_steps(
    record: Record,
    of: str,
    found: Runs | None,
    L: float | None,
    sigma_mult: float | None,
    how: str | None,
) -> Assumption:
    worst = holds = None
    known = record.fact("sigma_mult", of)
    if found and L is not None and (sigma_mult is not None or (known.all and not known.missing)):
        worst, longest = -inf, 0.0
        for seed, each in found.items():
            told = (float(v) for v in known.values[seed]) if sigma_mult is None else (sigma_mult,)
            sigma = max(told)
            worst = max(worst, *(p.noise_excess(L, sigma) for p in each))
            longest = max(longest, *(p.eta for p in each))
        holds = worst <= 1e-12 * longest
    return _on_trust(
        Assumption(
            "the step is short enough for L and the noise",
            "gamma^2 (1 + sigma_m^2) <= 2 eta - L eta^2 (1 + sigma_m^2), measured is the excess",
            worst,
            holds,
            f"L = {_told(L)}, {known if sigma_mult is None else f'sigma_m = {sigma_mult:.6g}'}"
            + ("" if found else "; eta, alpha, rho not recorded"),
        ),
        how,
    )


def _noise(
    record: Record, of: str, sigma_mult: float | None, sigma_add: float | None
) -> tuple[float, float] | None:
    """(sigma_m, sigma_a) that the promise is made for; None where nobody knows."""
    sigmas = []
    for name, told in (("sigma_mult", sigma_mult), ("sigma_add", sigma_add)):
        known = record.fact(name, of)
        if told is None and (known.missing or not known.all):
            return None
        sigmas.append(told if told is not None else max(float(v) for v in known.all))
    return sigmas[0], sigmas[1]


def _noise_law(
    record: Record, of: str, sigma_mult: float | None, sigma_add: float | None, how: str | None
) -> Assumption:
    """Recorded noise at most what is promised for; without a record of it, on the word of `how`."""
    told = _noise(record, of, sigma_mult, sigma_add)
    holds: bool | None = True
    said = []
    for i, name in enumerate(("sigma_mult", "sigma_add")):
        known = record.fact(name, of)
        said.append(str(known))
        if told is None:
            holds = None
        elif any(float(v) > told[i] * (1 + ROUNDING) for v in known.all):
            holds = False
        elif holds and (known.missing or not known.all):
            holds = None
    if holds is None and told is not None and how is not None:
        holds = True
        said.append(f"constants: {how}")
    return Assumption(
        NOISE_LAW,
        "E|g - grad f|^2 <= sigma_a^2 + sigma_m^2 |grad f|^2 with "
        + (
            "constants not known"
            if told is None
            else f"sigma_m = {told[0]:.6g}, sigma_a = {told[1]:.6g}"
        ),
        None,
        holds,
        "recorded: " + "; ".join(said),
    )


def _no_multiplicative(
    record: Record, of: str, sigma_mult: float | None, how: str | None
) -> Assumption:
    found = assume_fact(
        record, "sigma_mult", "no multiplicative noise", "sigma_m = 0", lambda v: v == 0, of=of
    )
    if found.holds is None and sigma_mult is not None:
        holds = False if sigma_mult else (True if how is not None else None)
        found = dataclasses.replace(found, measured=sigma_mult, holds=holds)
    return found


def _infimum(record: Record, quantity: str, how: str | None) -> Assumption:
    """f* must not lie above what the run met; that it is not too low, nobody can see."""
    lowest = relative = None
    holds: bool | None = None
    if quantity in record:
        values = record[quantity]
        lowest = float(np.nanmin(values)) if values.size else None
        if lowest is not None:
            relative = 1e-6 * max(float(np.abs(values[:, 0]).max()), 0.0)
            holds = None if lowest >= -relative else False
    if holds is None and lowest is not None and how is not None:
        holds = True
    return Assumption(
        "f* is the infimum",
        f"{quantity} >= 0 up to 1e-6 of its start, measured is the lowest",
        lowest,
        holds,
        "the values of the run" if how is None else f"the values of the run; f*: {how}",
    )
