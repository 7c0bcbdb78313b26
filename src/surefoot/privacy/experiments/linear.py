"""How linear is a training? Four on real digits, measured by injected perturbations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd
from torch import Tensor

from surefoot.guarantee import Guarantee, Verdict
from surefoot.privacy.experiments.training import DPSGD, Network, digits
from surefoot.privacy.facts import copy_facts
from surefoot.privacy.probe import UNEVEN, LinearityMeter, linearity_claim
from surefoot.record import Record

SIGMA, RATE, STEPS = 1.0, 0.1, 60
PROBES = {"quick": 4, "standard": 10, "paper": 20}


@dataclass(frozen=True)
class Case:
    """A training, and the verdict that its construction asks for."""

    name: str
    sizes: tuple[int, ...]
    lr: float
    weight_decay: float
    expected: str
    settled: bool = True
    """Whether every seed comes out as expected."""


CASES = (
    Case("softmax, lr 1", (64, 10), 1.0, 0.0, "OK"),
    Case("MLP, lr 1", (64, 64, 10), 1.0, 0.0, "strained"),
    Case("MLP, lr 8", (64, 64, 10), 8.0, 0.0, "violated", settled=False),
    Case("softmax, weight decay 0.1", (64, 10), 1.0, 0.1, "violated"),
)


@dataclass(frozen=True)
class Probed:
    """What the meter calls: the training of a case from one start, with vectors injected."""

    settings: DPSGD
    network: Network
    start: Tensor
    x: Tensor
    y: Tensor

    @property
    def record(self) -> Record:
        """What is trained, as facts."""
        record = Record()
        record.note(**self.settings.facts())
        return record

    def __call__(self, injections: Mapping[int, Tensor], seed: int) -> Tensor:
        """The last iterate."""
        return self.settings.train(
            self.network, self.start, self.x, self.y, seed=seed, injections=injections
        )


def measured(case: Case, seed: int, probes: int) -> Any:
    """The meter's reading of one training."""
    network = Network(case.sizes)
    x, y, _, _ = digits()
    start = network.initial(seed)
    settings = DPSGD(SIGMA, RATE, STEPS, lr=case.lr, weight_decay=case.weight_decay / case.lr)
    run = Probed(settings, network, start, x, y)
    scale = case.lr / (RATE * len(x))
    return LinearityMeter(run, STEPS, scale=scale, probes=probes, seed=seed).measure()


def column(case: Case) -> str:
    """The record's name for how far each probed step is from linear."""
    return f"{case.name}, {UNEVEN}"


def run(config: Any, seed: int, record: Record) -> None:
    """Weight and norm of the response to a perturbation of each probed step."""
    for case in CASES:
        found = measured(case, seed, PROBES[config.size])
        for step, weight, norm in zip(found.steps, found.weights, found.norms, strict=True):
            record.append(seed, int(step), **{f"{case.name}, weight": float(weight)})
            record.append(seed, int(step), **{f"{case.name}, norm": float(norm)})
        far = found.record[UNEVEN][0]
        record.extend(seed, column(case), far.tolist(), [int(step) for step in found.steps])
        copy_facts(found.record, record, seed, case.name)


def guarantees(config: Any) -> list[Guarantee]:
    """Not far from linear, for the trainings whose answer does not depend on the seed."""
    return [
        linearity_claim(column(case), of=case.name, name=claim_name(case))
        for case in CASES
        if case.settled
    ]


def claim_name(case: Case) -> str:
    """Of the guarantee."""
    return f"{case.name}: not far from linear"


EXPECTS = {
    claim_name(case): Verdict.BROKEN
    for case in CASES
    if case.settled and case.expected == "violated"
}


def tables(config: Any, record: Record) -> dict[str, pd.DataFrame]:
    """What the meter said, and the range of what it saw."""
    rows = []
    for case in CASES:
        weight = record.curves(f"{case.name}, weight").values
        norm = record.curves(f"{case.name}, norm").values
        findings = record.fact("linearity", case.name).values
        rows.append(
            {
                "training": case.name,
                "findings by seed": ", ".join(str(v) for found in findings.values() for v in found),
                "smallest weight": weight.min(),
                "largest weight": weight.max(),
                "largest norm": norm.max(),
            }
        )
    return {"linearity": pd.DataFrame(rows)}
