"""How the conditions of the rates are read off a record."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from itertools import product
from math import inf

import numpy as np
from jaxtyping import Float

from surefoot.guarantee import Assumption, assume_fact
from surefoot.nesterov.parameters import AgnesParams
from surefoot.record import Record

NOISE_LAW = "noise within its law"
ROUNDING = 1e-9


def start(record: Record, quantity: str) -> Float[np.ndarray, " seeds"]:
    curves = record.curves(quantity)
    if not len(curves.steps) or curves.steps[0] != 0:
        raise ValueError(
            f"{quantity!r} must be recorded at step 0 in every seed: L_0 is read from it"
        )
    found: Float[np.ndarray, " seeds"] = np.maximum(curves.values[:, 0], 0.0)
    return found


def number(record: Record, of: str, seed: int, name: str) -> float | None:
    """One recorded number; None where several were recorded, ValueError where none was."""
    values = record.fact(name, of).values.get(seed, ())
    if not values:
        whose = f" of {of!r}" if of else ""
        raise ValueError(
            f"{name}{whose} was not recorded for seed {seed}; what ran must note it in the record"
        )
    return float(values[0]) if len(values) == 1 else None


def numbers(record: Record, of: str, seed: int, names: tuple[str, ...]) -> tuple[float, ...] | None:
    found = [number(record, of, seed, name) for name in names]
    return None if None in found else tuple(v for v in found if v is not None)


Runs = Mapping[int, list[AgnesParams]]


def runs_of(record: Record, of: str) -> Runs | None:
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


def method(record: Record, of: str, names: tuple[str, ...]) -> tuple[Assumption, ...]:
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


def shown(value: float | None) -> str:
    return "not known" if value is None else f"{value:.6g}"


def on_trust(a: Assumption, how: str | None) -> Assumption:
    """A condition that rests on a constant of the problem is true only if it is said how it was found."""
    told = "nobody says how the constant of f was found" if how is None else f"constant of f: {how}"
    holds = None if a.holds and how is None else a.holds
    return dataclasses.replace(a, holds=holds, how=f"{a.how}; {told}")


def aiming(
    found: Runs | None, mu: float | None, how: str | None, name: str = "mu-strong aiming"
) -> Assumption:
    """The mu' of every run is at most that of f.

    Parameters
    ----------
    found
        What ran.
    mu, how
        The constant of f, and how it was found.
    name
        What f has with it.
    """
    needed = max(p.mu for each in found.values() for p in each) if found else None
    holds = None
    if needed is not None and mu is not None:
        holds = needed <= mu * (1 + ROUNDING)
    return on_trust(
        Assumption(
            name,
            f"mu' of eta, alpha, rho <= mu = {shown(mu)}",
            needed,
            holds,
            "recorded: eta, alpha, rho" if found else "eta, alpha, rho not recorded",
        ),
        how,
    )


def short_steps(
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
    return on_trust(
        Assumption(
            "the step is short enough for L and the noise",
            "gamma^2 (1 + sigma_m^2) <= 2 eta - L eta^2 (1 + sigma_m^2), measured is the excess",
            worst,
            holds,
            f"L = {shown(L)}, {known if sigma_mult is None else f'sigma_m = {sigma_mult:.6g}'}"
            + ("" if found else "; eta, alpha, rho not recorded"),
        ),
        how,
    )


def noise_of(
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


def noise_law(
    record: Record, of: str, sigma_mult: float | None, sigma_add: float | None, how: str | None
) -> Assumption:
    """Recorded noise at most what is promised for; without a record of it, on the word of `how`."""
    told = noise_of(record, of, sigma_mult, sigma_add)
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


def without(record: Record, of: str, fact: str, told: float | None, how: str | None) -> Assumption:
    """No noise of one kind, as recorded; without a record of it, on the word of `how`.

    Parameters
    ----------
    record, of
        The run.
    fact
        "sigma_mult" or "sigma_add".
    told, how
        What the caller says of it, and how that was found.
    """
    name, symbol = {
        "sigma_mult": ("no multiplicative noise", "sigma_m = 0"),
        "sigma_add": ("no additive noise", "sigma_a = 0"),
    }[fact]
    found = assume_fact(record, fact, name, symbol, lambda v: v == 0, of=of)
    if found.holds is not False and told:
        return dataclasses.replace(found, measured=told, holds=False)
    if found.holds is None and told is not None:
        holds = True if how is not None else None
        found = dataclasses.replace(found, measured=told, holds=holds)
    return found


def same_steps(record: Record, of: str, found: Runs | None) -> Assumption:
    """alpha = eta: Nesterov's method and no other of the family."""
    apart = None
    if found:
        apart = max(
            abs(p.alpha - p.eta) / p.eta if p.eta else inf for e in found.values() for p in e
        )
    return Assumption(
        "Nesterov's step", "alpha = eta, measured is the relative difference", apart,
        None if apart is None else apart <= 1e-12,
        "recorded: eta, alpha" if found else "eta, alpha, rho not recorded",
    )  # fmt: skip


def infimum(record: Record, quantity: str, how: str | None) -> Assumption:
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
