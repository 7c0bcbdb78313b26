"""What uploads without privacy give away, and how well they cover what they stand for."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from torch import nn

from surefoot.prototypes.config import PrototypesConfig
from surefoot.prototypes.covering import coverage
from surefoot.prototypes.experiments.adaptation import source_of
from surefoot.prototypes.experiments.settings import setting_of
from surefoot.prototypes.extraction import extract_prototypes
from surefoot.prototypes.membership import audit_membership
from surefoot.prototypes.prototype_set import PrototypeSet
from surefoot.prototypes.server_training import train_global_adapter
from surefoot.prototypes.splits import Rows
from surefoot.record import Record

UPLOADS: dict[str, tuple[str, float, int]] = {
    "mean": ("mean", 1.0, 2),
    "random .3": ("random", 0.3, 2),
    "cluster .1": ("cluster", 0.1, 2),
    "cluster .3": ("cluster", 0.3, 2),
    "cluster .3, clusters of one": ("cluster", 0.3, 1),
    "cluster_var .1": ("cluster_var", 0.1, 2),
}
"""Method, ratio, smallest cluster."""
MEASURED = {
    "auc": "membership AUC", "raw": "rows that are a record", "retrieved": "nearest record was in it",
    "chance": "the same by chance", "rank": "median rank of the nearest member",
    "distance": "coverage distance", "risk": "risk on the records",
}  # fmt: skip


def run(config: PrototypesConfig, seed: int, record: Record) -> None:
    """Attacks on each client's upload, its coverage, and the risk of the adapter fitted to all of them."""
    setting = setting_of(source_of(config), config, seed)
    steps = 80 if config.size == "quick" else 1000
    z, y = (torch.cat([rows[i] for rows in setting.train]) for i in (0, 1))
    for name, (method, ratio, least) in UPLOADS.items():
        found: dict[str, list[float]] = {key: [] for key in MEASURED}
        sets = [extract_prototypes(*rows, method, ratio, least, seed) for rows in setting.train]
        for upload, own, others in zip(sets, setting.train, setting.test, strict=True):
            audit = audit_membership(upload, *own, *others)
            hit, chance, rank = retrieved(upload, own, others)
            found["auc"].append(audit.auc)
            found["raw"].append(audit.raw_fraction)
            found["retrieved"].append(hit)
            found["chance"].append(chance)
            found["rank"].append(rank)
            found["distance"].append(coverage(*own, upload).distance)
        adapter, _ = train_global_adapter(sets, setting.head, steps=steps, seed=seed)
        with torch.no_grad():
            found["risk"] = [float(nn.functional.cross_entropy(setting.head(adapter(z)), y))]
        for key, values in found.items():
            record.append(seed, 0, **{f"{name}: {key}": float(np.mean(values))})


def retrieved(upload: PrototypeSet, members: Rows, others: Rows) -> tuple[float, float, float]:
    """How often the record nearest to a row, of those of its class, was in the upload; by chance; its rank.

    The attacker holds the records (texts) of the upload among others of the same kind. The rank is the
    median over rows of the first member in the order of distance: 1 is a hit.
    """
    hits, chances, ranks = [], [], []
    for row, label in zip(upload.features, upload.labels.tolist(), strict=True):
        inside, outside = (z[y == label].double() for z, y in (members, others))
        if not len(outside):
            continue
        away, near = (torch.cdist(row[None].double(), pool)[0] for pool in (inside, outside))
        ranks.append(1 + int((near <= away.min()).sum()))
        hits.append(ranks[-1] == 1)
        chances.append(len(inside) / (len(inside) + len(outside)))
    return float(np.mean(hits)), float(np.mean(chances)), float(np.median(ranks))


def tables(config: PrototypesConfig, record: Record) -> dict[str, pd.DataFrame]:
    """One row an upload, worst leak first."""
    rows = [
        {"upload": name}
        | {
            words: float(record.constant(f"{name}: {key}").mean())
            for key, words in MEASURED.items()
        }
        for name in UPLOADS
    ]
    frame = pd.DataFrame(rows).sort_values(MEASURED["auc"], ascending=False)
    where = "toy of digits" if source_of(config) == "digits" else "WordNet views"
    return {f"leakage and coverage, without privacy, {where}": frame.reset_index(drop=True)}
