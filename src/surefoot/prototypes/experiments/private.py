"""Accuracy at small epsilon: settings fixed beforehand, as private data leave nothing to tune on."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from surefoot._numerics.seeds import generator_for
from surefoot._problems.arms import keep
from surefoot._problems.paired import paired
from surefoot.certificate import Certificate
from surefoot.prototypes._client.system_noise import system_normal
from surefoot.prototypes._server.drawing import PER_RECORD, training_features
from surefoot.prototypes.baselines import train_pooled_many
from surefoot.prototypes.config import PrototypesConfig
from surefoot.prototypes.experiments.accuracy import TEST_SHARE
from surefoot.prototypes.experiments.arms import zero_shot
from surefoot.prototypes.experiments.figures import lines_figure
from surefoot.prototypes.experiments.promises import judged
from surefoot.prototypes.experiments.settings import Setting, setting_of
from surefoot.prototypes.extraction import extract_prototypes
from surefoot.prototypes.gaussian_release import GaussianRelease
from surefoot.prototypes.guarantee import private_upload
from surefoot.prototypes.splits import Rows
from surefoot.record import Record

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

EPSILONS = (1.0, 2.0, 4.0, 8.0, math.inf)
DELTA, LR = 1e-5, 1e-3
STEPS = {"quick": 250, "standard": 1000, "paper": 1000}
MEAN, ADDITIVE, BARE, SUM = (
    "noisy mean", "additive", "additive, no residual", "secure sum, isotropic draws"
)  # fmt: skip
ARMS = (MEAN, ADDITIVE, BARE, SUM)


def run_on(source: str) -> Callable[[PrototypesConfig, int, Record], None]:
    """Every sampler at every epsilon, on the same noise where the upload is the same."""

    def run(config: PrototypesConfig, seed: int, record: Record) -> None:
        _run(setting_of(source, config, seed), config, seed, record)

    return run


def _run(setting: Setting, config: PrototypesConfig, seed: int, record: Record) -> None:
    tables: dict[tuple[str, float], Rows] = {}
    for epsilon in EPSILONS:
        release = GaussianRelease(epsilon, DELTA)
        sets = [extract_prototypes(*rows, "mean", dp=release) for rows in setting.train]
        if math.isfinite(epsilon):
            keep(record, seed, uploaded(epsilon), sets[0].record)
        tables[MEAN, epsilon] = training_features(sets, None, True, seed)
        tables[ADDITIVE, epsilon] = training_features(sets, "additive", True, seed)
        tables[BARE, epsilon] = training_features(sets, "additive", False, seed)
        tables[SUM, epsilon] = summed(setting, release, seed)
    looks = train_pooled_many(
        list(tables.values()), setting.head, LR, [STEPS[config.size]], seed=seed
    )
    for (arm, epsilon), (found,) in zip(tables, looks, strict=True):
        value = 100 * found.accuracy(setting.test).ind
        record.append(seed, 0, **{f"{arm}: epsilon {epsilon:g}": value})
    record.append(seed, 0, **{"zero-shot": zero_shot(setting).test})
    record.note(seed, delta=DELTA, clip=1.0, lr=LR, steps=STEPS[config.size], chosen="beforehand")


def summed(setting: Setting, release: GaussianRelease, seed: int) -> Rows:
    """Class sums that only their total over clients shows: each adds 1 / K of the noise's variance.

    What a secure sum would give, simulated. It is private only if nobody sees single uploads and all clients
    add their share.
    """
    classes, K = setting.head.classes, len(setting.train)
    total = torch.zeros(classes, setting.head.d, dtype=torch.float64)
    counts = torch.zeros(classes, dtype=torch.float64)
    for z, y in setting.train:
        z = z.double() * (release.clip / z.double().norm(dim=1, keepdim=True)).clamp(max=1)
        has = nn.functional.one_hot(y, classes).double()
        total += has.T @ z + 2 * release.clip * release.nu / K**0.5 * torch.as_tensor(
            system_normal(*total.shape)
        )
        counts += has.sum(0)
    return _drawn(total, counts, release, seed)


def _drawn(
    total: Float[Tensor, "classes d"],
    counts: Float[Tensor, " classes"],
    release: GaussianRelease,
    seed: int,
) -> tuple[Float[Tensor, "N d"], Int[Tensor, " N"]]:
    d, C = total.shape[1], release.clip
    there = counts > 0
    means = total[there] / counts[there, None]
    noise = d * (2 * C * release.nu / counts[there]).square()
    explained = (means.square().sum(1) - noise).clamp(min=0.02 * C**2).mean()
    variance = max(C**2 - float(explained), 0.05 * C**2) / d
    features, labels = [], []
    for label, mean in zip(torch.nonzero(there).flatten().tolist(), means, strict=True):
        drawn = PER_RECORD * int(counts[label])
        generator = generator_for("secure sum", seed, label)
        z = mean + variance**0.5 * torch.randn(drawn, d, generator=generator, dtype=torch.float64)
        features.append(C * nn.functional.normalize(z, dim=1))
        labels.append(torch.full((drawn,), label))
    return torch.cat(features).float(), torch.cat(labels)


def uploaded(epsilon: float) -> str:
    """The arm of one client's upload."""
    return f"upload at epsilon {epsilon:g}"


def certificates(config: PrototypesConfig, record: Record) -> list[Certificate]:
    """G2 of the uploads of the first client."""
    return [
        c
        for epsilon in EPSILONS
        if math.isfinite(epsilon)
        for c in judged(record, uploaded(epsilon), private_upload())
    ]


def tables(config: PrototypesConfig, record: Record) -> dict[str, pd.DataFrame]:
    """Accuracy in percent by epsilon, and differences to the noisy mean that the same upload gives."""
    rows = [
        {"arm": arm} | {f"epsilon {e:g}": _of(record, arm, e).mean() for e in EPSILONS}
        for arm in ARMS
    ]
    base = record.constant("zero-shot").mean()
    rows.append({"arm": "zero-shot"} | {f"epsilon {e:g}": base for e in EPSILONS})
    differences = []
    for arm in ARMS[1:]:
        for e in EPSILONS:
            mean, plain, corrected = paired(_of(record, arm, e) - _of(record, MEAN, e), TEST_SHARE)
            differences.append(
                {"arm": arm, "epsilon": e, f"minus {MEAN}": mean, "95 % interval +-": plain,
                 "corrected for overlapping splits +-": corrected}
            )  # fmt: skip
    title = (
        f"accuracy in percent, delta {DELTA:g}; below zero-shot an upload is worth nothing; "
        "below epsilon 4 additive may lose, at epsilon 1 zero-shot is hardly beaten locally"
    )
    return {
        title: pd.DataFrame(rows),
        f"paired differences to the {MEAN}": pd.DataFrame(differences),
    }


def _of(record: Record, arm: str, epsilon: float) -> Float[np.ndarray, " seeds"]:
    return record.constant(f"{arm}: epsilon {epsilon:g}")


def figures(config: PrototypesConfig, record: Record) -> dict[str, Figure]:
    """Accuracy over epsilon."""
    finite = [e for e in EPSILONS if math.isfinite(e)]
    curves = {arm: [float(_of(record, arm, e).mean()) for e in finite] for arm in ARMS}
    curves["zero-shot"] = [float(record.constant("zero-shot").mean())] * len(finite)
    return {"accuracy by epsilon": lines_figure(finite, curves, "epsilon", "accuracy in percent")}
