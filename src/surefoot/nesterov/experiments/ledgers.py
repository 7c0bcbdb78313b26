"""Run a method under its ledger, and carry a ledger through a study's record and back."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import sqrt

import numpy as np
import torch
from torch import Tensor

from surefoot.nesterov._ledger.landscape import Circumstances
from surefoot.nesterov.guarantee import COLUMNS, LedgerCertificate
from surefoot.nesterov.ledger import Anchor, Ledger, Ledgered, SmoothnessWarning
from surefoot.nesterov.optimizer import NAG
from surefoot.record import Record

# A record holds numbers; the reasons for "unknown" travel as their place in this list.
REASONS = (None, "f* is not known", "projection failed", "the replay did not end where the run did")


@dataclass(frozen=True)
class Ran:
    """A run under its ledger; `losses[n]` is f(y_n), `blow_up` the first n with f(y_n) > f(y_0)."""

    measured: Ledgered
    losses: list[float]
    blow_up: int | None
    warned: str | None


def run_nag(
    parameters: Iterable[Tensor],
    f: Callable[[], Tensor],
    *,
    mu: float,
    eta: float,
    steps: int,
    anchor: Anchor = "final",
    judge: int | None = None,
    f_star: float = 0.0,
    check: Callable[[Ledger], None] = lambda ledger: None,
) -> Ran:
    """NAG with the momentum of (mu, eta) from rest, full gradients, under a ledger.

    A diverging run ends when its loss exceeds a thousand times the first one.
    """
    s = sqrt(mu * eta)
    optimizer = NAG(parameters, lr=eta, momentum=(1 - s) / (1 + s))
    ledger = Ledger(optimizer, f, mu=mu, eta=eta, anchor=anchor, f_star=f_star)
    losses: list[float] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", SmoothnessWarning)
        for _ in range(steps):
            optimizer.zero_grad()
            loss = f()
            losses.append(float(loss.detach()))
            if not losses[-1] <= 1e3 * losses[0]:
                break
            loss.backward()  # type: ignore[no-untyped-call]
            ledger.record(losses[-1])
            optimizer.step()
    warned = [str(w.message) for w in caught if issubclass(w.category, SmoothnessWarning)]
    above = [n for n, value in enumerate(losses) if n and not value <= losses[0]]
    measured = ledger.measure(judge=judge)
    check(ledger)
    return Ran(measured, losses, above[0] if above else None, warned[0] if warned else None)


def run_gd(
    parameters: Iterable[Tensor], f: Callable[[], Tensor], *, eta: float, steps: int
) -> list[float]:
    """Gradient descent from where the parameters stand; the losses f(x_0), ..., f(x_steps - 1)."""
    optimizer = torch.optim.SGD(list(parameters), lr=eta)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = f()
        losses.append(float(loss.detach()))
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return losses


def store(record: Record, seed: int, arm: str, measured: Ledgered) -> None:
    """Put a ledger into a record, its columns named `ARM: COLUMN`."""
    for column in COLUMNS:
        record.extend(seed, f"{arm}: {column}", measured.terms[column], measured.steps)
    about = measured.about
    reason = 0 if about.unknown is None else 1
    for i, text in enumerate(REASONS):
        if text is not None and about.unknown is not None and about.unknown.startswith(text[:12]):
            reason = i
    record.update(
        seed,
        0,
        {
            f"{arm}: about.s": about.s,
            f"{arm}: about.alpha": about.alpha,
            f"{arm}: about.f0_gap": about.f0_gap,
            f"{arm}: about.anchor_gap": about.anchor_gap,
            f"{arm}: about.final_anchor": float(about.final_anchor),
            f"{arm}: about.unknown": float(reason),
            f"{arm}: about.diverged": float(about.diverged),
            f"{arm}: about.f_star": measured.f_star,
        },
    )


def restore(record: Record, arm: str) -> LedgerCertificate:
    """Judge a ledger that `store` put into a record."""
    steps = record.curves(f"{arm}: L").steps
    terms = {c: record[f"{arm}: {c}"][0] for c in COLUMNS}

    def about(name: str) -> float:
        return float(record.constant(f"{arm}: about.{name}")[0])

    measured = Ledgered(
        np.asarray(steps, dtype=np.int64),
        terms,
        Circumstances(
            s=about("s"),
            alpha=about("alpha"),
            f0_gap=about("f0_gap"),
            anchor_gap=about("anchor_gap"),
            final_anchor=bool(about("final_anchor")),
            unknown=REASONS[int(about("unknown"))],
            diverged=bool(about("diverged")),
        ),
        about("f_star"),
    )
    return measured.certificate(arm)


def first_below(values: np.ndarray | list[float], level: float) -> int | None:
    """The first step at which a curve is at or below a level."""
    at = np.flatnonzero(np.asarray(values) <= level)
    return int(at[0]) if len(at) else None
