"""A client's own adapter from the global one: a few records of each class, with and without distillation."""

from __future__ import annotations

import pandas as pd

from surefoot._problems.arms import last
from surefoot.prototypes.accuracy import accuracy_matrix
from surefoot.prototypes.adaptation import adapt_locally
from surefoot.prototypes.config import PrototypesConfig
from surefoot.prototypes.experiments.settings import setting_of
from surefoot.prototypes.extraction import extract_prototypes
from surefoot.prototypes.server_training import train_global_adapter
from surefoot.record import Record

SHOTS = {"quick": (2,), "standard": (1, 2, 4, 8, 16), "paper": (1, 2, 4, 8, 16, 32, 64)}
WEIGHTS = (0.0, 1.0, 10.0)
STEPS = {"quick": 100, "standard": 1000, "paper": 1000}
EPOCHS = 10
GLOBAL = "global"


def source_of(config: PrototypesConfig) -> str:
    """The toy at size quick, then real texts."""
    return "digits" if config.size == "quick" else "nouns"


def run(config: PrototypesConfig, seed: int, record: Record) -> None:
    """Own and other domains after local training from the adapter of one round."""
    setting = setting_of(source_of(config), config, seed)
    sets = [extract_prototypes(*rows, seed=seed) for rows in setting.train]
    shared, _ = train_global_adapter(sets, setting.head, steps=STEPS[config.size], seed=seed)
    found = accuracy_matrix(shared, setting.test, setting.head)
    record.append(
        seed, 0, **{f"{GLOBAL}: own": 100 * found.ind, f"{GLOBAL}: others": 100 * found.ood}
    )
    for shots in SHOTS[config.size]:
        for weight in WEIGHTS:
            local = [
                adapt_locally(
                    shared,
                    *rows,
                    setting.head,
                    kd_weight=weight,
                    epochs=EPOCHS,
                    shots=shots,
                    seed=seed,
                )
                for rows in setting.train
            ]
            found = accuracy_matrix(local, setting.test, setting.head)
            arm = f"{shots} shots, lambda {weight:g}"
            record.append(
                seed, 0, **{f"{arm}: own": 100 * found.ind, f"{arm}: others": 100 * found.ood}
            )


def tables(config: PrototypesConfig, record: Record) -> dict[str, pd.DataFrame]:
    """Accuracy on own and other domains, and the change that local training made."""
    arms = [GLOBAL] + [f"{s} shots, lambda {w:g}" for s in SHOTS[config.size] for w in WEIGHTS]
    rows = []
    for arm in arms:
        own, others = (last(record, f"{arm}: {where}") for where in ("own", "others"))
        base = last(record, f"{GLOBAL}: own"), last(record, f"{GLOBAL}: others")
        rows.append(
            {"adapter": arm, "own domain": own, "other domains": others,
             "change, own": own - base[0], "change, others": others - base[1]}
        )  # fmt: skip
    where = "toy of digits" if source_of(config) == "digits" else "WordNet views"
    title = f"accuracy in percent after {EPOCHS} local epochs from cluster_var .1, {where}"
    return {title: pd.DataFrame(rows)}
