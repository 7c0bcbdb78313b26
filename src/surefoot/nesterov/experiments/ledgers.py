"""Run a method under its ledger, and carry a ledger through a study's record and back."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import sqrt

import numpy as np
import torch
from torch import Tensor

from surefoot.nesterov._ledger.measured import MeasuredLedger, ledger_certificates
from surefoot.nesterov.guarantee import LedgerCertificate
from surefoot.nesterov.ledger import Anchor, Ledger, SmoothnessWarning
from surefoot.nesterov.optimizer import NAG
from surefoot.record import Record


@dataclass(frozen=True)
class Ran:
    """A run under its ledger; `losses[n]` is f(y_n), `blow_up` the first n with f(y_n) > f(y_0)."""

    measured: MeasuredLedger
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
            ledger.observe(losses[-1])
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


def store(record: Record, seed: int, arm: str, measured: MeasuredLedger) -> None:
    """Put the ledger of an arm into a study's record."""
    measured.write(record, seed, arm)


def restore(record: Record, arm: str) -> LedgerCertificate:
    """Judge the ledger of an arm, which ran under one seed."""
    return ledger_certificates(record, arm)[0]


def carry_facts(source: Record, record: Record, seed: int, of: str) -> None:
    """Note in a study's record, of one arm, what ran noted in its own."""
    for name, known in source.facts.items():
        for value in known.all:
            record.note(seed, of, **{name: value})


def first_below(values: np.ndarray | list[float], level: float) -> int | None:
    """The first step at which a curve is at or below a level."""
    at = np.flatnonzero(np.asarray(values) <= level)
    return int(at[0]) if len(at) else None
