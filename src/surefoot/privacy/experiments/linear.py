"""Study G: how linear is a training? Four on real digits, measured by injected perturbations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd
from torch import Tensor

from surefoot.privacy.experiments.training import DPSGD, Network, digits
from surefoot.privacy.probe import LinearityMeter
from surefoot.record import Record

SIGMA, RATE, STEPS = 1.0, 0.1, 60
PROBES = {"quick": 4, "standard": 10, "paper": 20}
VERDICTS = ("OK", "strained", "violated")


@dataclass(frozen=True)
class Case:
    """A training, and the verdict that its construction asks for."""

    name: str
    sizes: tuple[int, ...]
    lr: float
    weight_decay: float
    expected: str


CASES = (
    Case("softmax, lr 1", (64, 10), 1.0, 0.0, "OK"),
    Case("MLP, lr 1", (64, 64, 10), 1.0, 0.0, "strained"),
    Case("MLP, lr 8", (64, 64, 10), 8.0, 0.0, "violated"),
    Case("softmax, weight decay 0.1", (64, 10), 1.0, 0.1, "violated"),
)


def measured(case: Case, seed: int, probes: int) -> Any:
    """The meter's reading of one training."""
    network = Network(case.sizes)
    x, y, _, _ = digits()
    start = network.initial(seed)
    settings = DPSGD(SIGMA, RATE, STEPS, lr=case.lr, weight_decay=case.weight_decay / case.lr)

    def run(injections: Mapping[int, Tensor], seed: int) -> Tensor:
        return settings.train(network, start, x, y, seed=seed, injections=injections)

    scale = case.lr / (RATE * len(x))
    return LinearityMeter(run, STEPS, scale=scale, probes=probes, seed=seed).measure()


def run(config: Any, seed: int, record: Record) -> None:
    """Weight and norm of the response to a perturbation of each probed step."""
    for case in CASES:
        found = measured(case, seed, PROBES[config.size])
        for step, weight, norm in zip(found.steps, found.weights, found.norms, strict=True):
            record.append(seed, int(step), **{f"{case.name}, weight": float(weight)})
            record.append(seed, int(step), **{f"{case.name}, norm": float(norm)})
        record.append(seed, 0, **{f"{case.name}, verdict": VERDICTS.index(found.verdict)})


def tables(config: Any, record: Record) -> dict[str, pd.DataFrame]:
    """What the meter said, and the range of what it saw."""
    rows = []
    for case in CASES:
        weight = record.curves(f"{case.name}, weight").values
        norm = record.curves(f"{case.name}, norm").values
        verdicts = record.constant(f"{case.name}, verdict").astype(int)
        rows.append(
            {
                "training": case.name,
                "verdicts by seed": ", ".join(VERDICTS[v] for v in verdicts),
                "smallest weight": weight.min(),
                "largest weight": weight.max(),
                "largest norm": norm.max(),
            }
        )
    return {"linearity": pd.DataFrame(rows)}
