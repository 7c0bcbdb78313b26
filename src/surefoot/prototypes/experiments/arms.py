"""Every arm's candidates on the validation split, and what the choice scores on the test split."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from surefoot.prototypes._baselines.federation import Federation
from surefoot.prototypes._server.adamw import Schedule
from surefoot.prototypes._server.drawing import Sampler, training_features
from surefoot.prototypes.accuracy import accuracy_matrix
from surefoot.prototypes.baselines import Baseline, federate, train_pooled_many
from surefoot.prototypes.experiments.settings import Setting
from surefoot.prototypes.extraction import extract_prototypes
from surefoot.prototypes.mixtures import fedpft, sample_mixtures
from surefoot.prototypes.prototype_set import PrototypeSet
from surefoot.prototypes.server_training import train_global_adapter
from surefoot.prototypes.splits import Rows

RATES = (1e-3, 3e-3)
STEPS = {"quick": (60, 120), "standard": (60, 120, 250, 500, 1000, 2000)}
LOCAL = {"quick": (1, 5), "standard": (1, 5, 20)}
LOCAL_RATES = {"quick": (1e-3, 1e-2), "standard": (1e-3, 3e-3, 6e-3, 1e-2)}
ROUNDS = {"quick": (2,), "standard": (2, 4, 8)}
FEW_ROUNDS = {"quick": (2,), "standard": (1, 2, 4)}
"""Of the methods with a strength, which take 5 local epochs a round: as many candidates, fewer rounds."""
STRENGTHS = {"fedprox": (0.1, 1.0), "ditto": (0.1, 2.0), "moon": (0.1, 1.0),
             "fedproto": (1.0, 100.0), "dbe": (0.1, 1.0)}  # fmt: skip


@dataclass(frozen=True)
class Score:
    """Of one candidate; accuracies are means over domains, in percent."""

    val: float
    test: float
    others: float
    worst: float
    megabytes: float
    what: str


def scored(found: Baseline, setting: Setting, nbytes: int, what: str) -> Score:
    """A model, or one a client: own domains, others', the worst, and megabytes up."""
    val, test = found.accuracy(setting.val), found.accuracy(setting.test)
    return Score(
        100 * val.ind, 100 * test.ind, 100 * test.ood, 100 * test.worst, nbytes / 1e6, what
    )


def zero_shot(setting: Setting) -> Score:
    """The head alone."""
    val, test = (
        accuracy_matrix(nn.Identity(), part, setting.head) for part in (setting.val, setting.test)
    )
    return Score(
        100 * val.ind, 100 * test.ind, 100 * test.ood, 100 * test.worst, 0.0, "no training"
    )


def uploads(setting: Setting, size: str, seed: int) -> dict[str, tuple[Rows, int]]:
    """Arm -> the features that the server trains on, and the bytes of all uploads."""
    found: dict[str, tuple[Rows, int]] = {}

    def add(
        name: str, sets: list[PrototypeSet], sampler: Sampler = None, residual: bool = True
    ) -> None:
        rows = training_features(sets, sampler, residual, seed)
        found[name] = rows, sum(s.nbytes for s in sets)

    def made(method: str, ratio: float) -> list[PrototypeSet]:
        return [extract_prototypes(*rows, method, ratio, seed=seed) for rows in setting.train]

    means = made("mean", 1.0)
    add("mean", means)
    add("additive", means, "additive")
    add("additive, no residual", means, "additive", False)
    add("cluster_var .1", made("cluster_var", 0.1))
    if size != "quick":
        add("cluster_var .06", made("cluster_var", 0.06))
        add("cluster .1", made("cluster", 0.1))
        add("random .1", made("random", 0.1))
        add("random .3", made("random", 0.3))
    for k in (1,) if size == "quick" else (1, 2):
        mixtures = [fedpft(*rows, components=k, seed=seed) for rows in setting.train]
        sent = sum(m.nbytes for each in mixtures for m in each.values())
        found[f"FedPFT K={k}"] = sample_mixtures(mixtures, 2, seed), sent
    z, y = (torch.cat([rows[i] for rows in setting.train]) for i in (0, 1))
    found["centralised"] = (z, y), 4 * z.numel() + 8 * len(y)
    return found


def one_round_arms(setting: Setting, size: str, seed: int) -> dict[str, list[Score]]:
    """Candidates of every arm whose server trains on an upload: rates x steps."""
    sent = uploads(setting, size, seed)
    found: dict[str, list[Score]] = {name: [] for name in sent}
    for lr in RATES:
        tables = [rows for rows, _ in sent.values()]
        runs = train_pooled_many(tables, setting.head, lr, STEPS[size], seed=seed)
        for (name, (_, nbytes)), run in zip(sent.items(), runs, strict=True):
            found[name] += [scored(b, setting, nbytes, f"lr {lr:g}, {b.done} steps") for b in run]
    return found


def federated_arms(setting: Setting, size: str, seed: int) -> dict[str, list[Score]]:
    """Candidates of every federation: rates x local epochs for one round, else rates x strength x rounds."""
    found: dict[str, list[Score]] = {}

    def run(
        method: Federation, rounds: Sequence[int], lr: float, epochs: int, mu: float
    ) -> list[Score]:
        runs = federate(method, setting.train, setting.head, max(rounds), lr, epochs, mu, seed=seed)
        what = f"lr {lr:g}, {epochs} local epochs" + ("" if method == "fedavg" else f", mu {mu:g}")
        return [
            scored(runs[r - 1], setting, runs[r - 1].bytes_up, f"{what}, {r} round{'s' * (r != 1)}")
            for r in rounds
        ]

    found["FedAvg, 1 round"] = [
        s for lr in LOCAL_RATES[size] for e in LOCAL[size] for s in run("fedavg", (1,), lr, e, 1.0)
    ]
    rounds = ROUNDS[size]
    found["FedAvg"] = [s for lr in RATES for e in (1, 5) for s in run("fedavg", rounds, lr, e, 1.0)]
    found["local"] = [s for lr in RATES for e in (1, 5) for s in run("local", rounds, lr, e, 1.0)]
    names: Mapping[str, Federation] = {
        "FedProx": "fedprox", "Ditto": "ditto", "MOON": "moon", "FedProto": "fedproto", "DBE": "dbe"
    }  # fmt: skip
    few = FEW_ROUNDS[size]
    for name, method in names.items() if size != "quick" else ():
        found[name] = [
            s for lr in RATES for mu in STRENGTHS[method] for s in run(method, few, lr, 5, mu)
        ]
    return found


def paper_schedule(rounds: int, lr: float = 1e-3) -> Callable[[int], float]:
    """10 rounds of warm-up, then a cosine that would reach 0 after 200: it handicaps the first rounds."""
    return Schedule(lr, max(rounds, 200), 32, None, False, False, 0).rate


def stopped_early(setting: Setting, seed: int) -> Score:
    """Means trained on as in the paper, whose stop rule under-trains small uploads."""
    sets = [extract_prototypes(*rows, "mean", seed=seed) for rows in setting.train]
    adapter, report = train_global_adapter(sets, setting.head, seed=seed)
    val, test = (accuracy_matrix(adapter, p, setting.head) for p in (setting.val, setting.test))
    sent = sum(s.nbytes for s in sets) / 1e6
    what = f"{len(report.losses)} steps: {report.stop}"
    return Score(100 * val.ind, 100 * test.ind, 100 * test.ood, 100 * test.worst, sent, what)


def handicapped(setting: Setting, rounds: Sequence[int], seed: int) -> list[Score]:
    """FedAvg as the authors run it, after some rounds."""
    most = max(rounds)
    runs = federate("fedavg", setting.train, setting.head, most, paper_schedule(most), seed=seed)
    looked = [runs[r - 1] for r in rounds]
    return [scored(b, setting, b.bytes_up, f"{b.done} round{'s' * (b.done > 1)}") for b in looked]
