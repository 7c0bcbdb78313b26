"""What a ledger measured, as it stands in a record: terms as quantities, the rest as facts, and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import isnan

import numpy as np
from jaxtyping import Float, Int

from surefoot.guarantee import Assumption, assume_fact
from surefoot.nesterov._ledger.certificate import COLUMNS, LedgerCertificate, ledger_certificate
from surefoot.nesterov._ledger.landscape import Circumstances
from surefoot.record import Fact, Record

NOTHING = "nothing"
FOREIGN = "not those of the closure"


@dataclass(frozen=True)
class MeasuredLedger:
    """The terms of a run, the circumstances they were taken in, and the facts of what ran."""

    steps: Int[np.ndarray, " N"]
    terms: Mapping[str, Float[np.ndarray, " N"]]
    about: Circumstances
    facts: Mapping[str, Fact] = field(default_factory=dict)

    def write(self, record: Record, seed: int = 0, of: str = "") -> None:
        """Put it into a record, columns and facts under the name of the one of several that ran."""
        for name in COLUMNS:
            record.extend(seed, _column(of, name), self.terms[name], self.steps)
        about = self.about
        facts: dict[str, Fact] = {
            "s": about.s, "f0": about.f0, "lowest_f": about.lowest, "diverged": about.diverged,
            "missing": about.unknown or NOTHING, "steps": len(self.steps),
        }  # fmt: skip
        if about.foreign:
            facts["gradients"] = FOREIGN
        if about.f_star is not None:
            facts["f_star"] = about.f_star
        record.note(seed, of, **{**self.facts, **facts})

    def certificate(self, name: str = "accelerated descent") -> LedgerCertificate:
        """Judge it, as it would be judged from a record."""
        record = Record()
        self.write(record)
        return ledger_certificates(record, name=name)[0]

    @classmethod
    def read(cls, record: Record, seed: int = 0, of: str = "") -> MeasuredLedger:
        """Take it out of a record; what the record does not say makes the verdict unknown."""
        absent, several = [], []

        def fact(name: str) -> Fact | None:
            values = record.fact(name, of).values.get(seed, ())
            if not values:
                absent.append(name)
            if len(values) > 1:
                several.append(name)
            return values[0] if len(values) == 1 else None

        def number(name: str) -> float:
            value = fact(name)
            return float("nan") if value is None else float(value)

        missing, f_star = fact("missing"), fact("f_star")
        absent = [name for name in absent if name != "f_star"]  # one that is not known is not noted
        s, f0, lowest, diverged = number("s"), number("f0"), number("lowest_f"), fact("diverged")
        count = fact("steps")
        unknown = None if missing in (NOTHING, None) else str(missing)
        for names, what in ((absent, "does not say"), (several, "contradicts itself about")):
            if names:
                unknown = f"the record {what} {', '.join(sorted(names))}"
        about = Circumstances(
            s=s,
            f_star=None if f_star is None else float(f_star),
            f0=f0,
            lowest=lowest,
            unknown=unknown,
            diverged=bool(diverged) and not unknown,
            foreign=record.fact("gradients", of).values.get(seed, ()) == (FOREIGN,),
        )
        if count == 0:
            return cls(np.zeros(0, dtype=np.int64), {c: np.zeros(0) for c in COLUMNS}, about)
        curves = {c: record.curves(_column(of, c)) for c in COLUMNS}
        row = int(np.flatnonzero(curves["L"].seeds == seed)[0])
        return cls(curves["L"].steps, {c: k.values[row] for c, k in curves.items()}, about)


def ledger_certificates(
    record: Record, of: str = "", name: str = "accelerated descent"
) -> list[LedgerCertificate]:
    """The certificate of every ledger in a record that has this name: one for each seed.

    Parameters
    ----------
    record
        Where ledgers wrote.
    of
        Which of several that ran, as in `Record.note`; "" where there is one.
    name
        The name of the certificate, where `of` is "".

    Raises
    ------
    UnknownNameError
        The record holds no such ledger.
    """
    known = record.fact("steps", of)
    seeds = [seed for seed in known.values if known.values[seed]]
    if not seeds:
        seeds = [int(s) for s in record.curves(_column(of, "L")).seeds]
    title = of or name
    return [
        ledger_certificate(
            (found := MeasuredLedger.read(record, seed, of)).steps,
            found.terms,
            found.about,
            name=title if len(seeds) == 1 else f"{title}, seed {seed}",
            settings=_settings(record, of, found.about.s),
        )
        for seed in seeds
    ]


def _settings(record: Record, of: str, s: float) -> tuple[Assumption, ...]:
    """That the method of the theorem ran, as the ledger or its optimizer noted it."""
    wanted = (1 - s) / (1 + s)
    momentum = assume_fact(
        record, "rho", "the momentum of the promise", f"rho = (1-s)/(1+s) = {wanted:.6g}",
        lambda v: abs(float(v) - wanted) <= 1e-9, of=of,
    )  # fmt: skip
    if isnan(s):
        momentum = replace(momentum, holds=None)
    return (
        assume_fact(
            record, "method", "the method", "NAG, AGNES or SGD with nesterov=True",
            lambda v: v in ("NAG", "AGNES", "SGD with nesterov=True"), of=of,
        ),
        momentum,
        assume_fact(
            record, "weight_decay", "no weight decay", "0; put it into the closure",
            lambda v: v == 0, of=of,
        ),
        assume_fact(
            record, "hyperparameters_changed", "the same hyperparameters at every step", "no change",
            lambda v: v is False, of=of,
        ),
        assume_fact(record, "maximize", "a descent", "maximize=False", lambda v: v is False, of=of),
    )  # fmt: skip


def _column(of: str, name: str) -> str:
    return f"{of}: {name}" if of else name
