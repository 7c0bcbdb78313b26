"""What is promised of every run, on the toy: pooled training, descent, privacy, coverage, bytes."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import pandas as pd
import torch

from surefoot._problems.arms import keep, last, of_arm
from surefoot.certificate import Certificate, certify
from surefoot.guarantee import Guarantee, Verdict
from surefoot.prototypes.adapter import ResidualAdapter
from surefoot.prototypes.advantage import measure_advantage
from surefoot.prototypes.communication import comm_cost
from surefoot.prototypes.config import PrototypesConfig
from surefoot.prototypes.covering import coverage
from surefoot.prototypes.experiments.settings import setting_of
from surefoot.prototypes.extraction import extract_prototypes
from surefoot.prototypes.gaussian_release import GaussianRelease
from surefoot.prototypes.guarantee import (
    armijo_descent,
    communication,
    coverage_bound,
    distinguishing_advantage,
    pooled_identity,
    private_upload,
    stationary_point,
)
from surefoot.prototypes.head import ZeroShotHead
from surefoot.prototypes.pooled import compare_with_pooled
from surefoot.prototypes.server_training import train_global_adapter
from surefoot.record import Record


def judged(record: Record, arm: str, *guarantees: Guarantee) -> list[Certificate]:
    """Certificates of one arm's record, under its name."""
    found = of_arm(record, arm)
    return [dataclasses.replace(certify(found, g), name=f"{g.name}, {arm}") for g in guarantees]


# -- G1: training on all records is pooled training ------------------------------------------------------

ALL, SOME = "all records", "cluster_var"
POOLED_STEPS = 60


def run_pooled(config: PrototypesConfig, seed: int, record: Record) -> None:
    """The federation's adapter beside the one of the pooled records; another upload beside it."""
    setting = setting_of("digits", config, seed)
    z, y = (torch.cat([rows[i] for rows in setting.train]) for i in (0, 1))
    for arm, method in ((ALL, "random"), (SOME, "cluster_var")):
        sets = [
            extract_prototypes(*rows, method, 1.0 if arm == ALL else 0.1) for rows in setting.train
        ]
        _, report = compare_with_pooled(sets, z, y, setting.head, steps=POOLED_STEPS, seed=seed)
        keep(record, seed, arm, report.record)


def pooled_certificates(config: PrototypesConfig, record: Record) -> list[Certificate]:
    """G1, of both."""
    return [c for arm in (ALL, SOME) for c in judged(record, arm, pooled_identity())]


POOLED_EXPECTS = {f"{pooled_identity().name}, {SOME}": Verdict.NOT_PROMISED}


def pooled_tables(config: PrototypesConfig, record: Record) -> dict[str, pd.DataFrame]:
    """Weights that differ."""
    rows = [
        {"upload": arm, "weights that differ": last(record, f"{arm}: weights that differ")}
        for arm in (ALL, SOME)
    ]
    return {"the federation's adapter beside that of the pooled records": pd.DataFrame(rows)}


# -- G4: the fit on the server ---------------------------------------------------------------------------

DESCENT_STEPS = {"quick": 40, "standard": 300, "paper": 1000}
FITTED = "certified"


def run_convergence(config: PrototypesConfig, seed: int, record: Record) -> None:
    """Gradient descent on all prototypes whose every step is checked, in float64."""
    setting = setting_of("digits", config, seed)
    sets = [extract_prototypes(z.double(), y, "cluster", 0.3) for z, y in setting.train]
    head = ZeroShotHead(setting.head.weight.double(), setting.head.scale)
    _, report = train_global_adapter(
        sets, head, epochs=DESCENT_STEPS[config.size], solver="certified", seed=seed
    )
    keep(record, seed, FITTED, report.record)
    record.note(seed, FITTED, stop=report.stop)


def convergence_certificates(config: PrototypesConfig, record: Record) -> list[Certificate]:
    """G4 at each step, and of the run."""
    return judged(record, FITTED, armijo_descent(), stationary_point())


def convergence_tables(config: PrototypesConfig, record: Record) -> dict[str, pd.DataFrame]:
    """Where it began, where it ended, and what the theorem says of the gradient."""
    own = of_arm(record, FITTED)
    loss, steps = own.curves("loss"), own["step size"]
    bound = 2 * (loss.values[:, 0] - loss.values[:, -1]) / steps.sum(1)
    row = {
        "steps": int(loss.steps[-1]), "loss at the start": loss.values[:, 0].mean(),
        "loss at the end": loss.values[:, -1].mean(),
        "least |grad|^2": own["least gradient norm squared"][:, -1].mean(),
        "promised to be at most": bound.mean(),
        "stopped because": ", ".join(sorted(map(str, own.fact("stop").all))),
    }  # fmt: skip
    return {"full-batch descent with back-tracking": pd.DataFrame([row])}


# -- G2 and G3: what is private --------------------------------------------------------------------------

EPSILONS, DELTA = (1.0, 4.0, 8.0), 1e-5
TRIALS = {"quick": 2_000, "standard": 20_000, "paper": 100_000}


def _arm(epsilon: float) -> str:
    return f"epsilon {epsilon:g}"


def run_privacy(config: PrototypesConfig, seed: int, record: Record) -> None:
    """Real uploads, and the best attack on as many worst cases."""
    setting = setting_of("digits", config, seed)
    for epsilon in EPSILONS:
        release, arm = GaussianRelease(epsilon, DELTA), _arm(epsilon)
        upload = extract_prototypes(*setting.train[0], "mean", dp=release)
        keep(record, seed, arm, upload.record)
        found = measure_advantage(release, trials=TRIALS[config.size], seed=seed)
        keep(record, seed, f"{arm}, attacked", found.record)
        record.append(
            seed, 0,
            **{f"{arm}: promised advantage": found.promised, f"{arm}: of any": found.promised_of_any},
        )  # fmt: skip


def privacy_certificates(config: PrototypesConfig, record: Record) -> list[Certificate]:
    """G2 of the uploads, G3 of the attacks."""
    return [
        c
        for epsilon in EPSILONS
        for c in (
            *judged(record, _arm(epsilon), private_upload()),
            *judged(record, f"{_arm(epsilon)}, attacked", distinguishing_advantage()),
        )
    ]


def privacy_tables(config: PrototypesConfig, record: Record) -> dict[str, pd.DataFrame]:
    """The measured advantage beside both promises."""
    rows = [
        {"epsilon": epsilon, "noise multiplier": GaussianRelease(epsilon, DELTA).nu,
         "measured TPR - FPR": last(record, f"{_arm(epsilon)}, attacked: advantage"),
         "promised, and reached": last(record, f"{_arm(epsilon)}: promised advantage"),
         "promised of any mechanism": last(record, f"{_arm(epsilon)}: of any")}
        for epsilon in EPSILONS
    ]  # fmt: skip
    return {f"the best attack on the worst case, delta {DELTA:g}": pd.DataFrame(rows)}


# -- G5: what prototypes lose against records ------------------------------------------------------------

COVERED = {"mean": ("mean", 1.0), "random .1": ("random", 0.1), "cluster .1": ("cluster", 0.1),
           "cluster .3": ("cluster", 0.3), "cluster_var .1": ("cluster_var", 0.1)}  # fmt: skip
RANDOM_ADAPTERS = 5
FIT_STEPS = {"quick": 60, "standard": 1000, "paper": 1000}
COVERAGE_EXPECTS = {
    f"{coverage_bound().name}, {name}, normalised head": Verdict.VACUOUS for name in COVERED
}


def _heads(head: ZeroShotHead) -> dict[str, ZeroShotHead]:
    rows = head.weight / head.scale
    return {"normalised head": head, "head without norm": ZeroShotHead(rows, 3.0, normalize=False)}


def run_coverage(config: PrototypesConfig, seed: int, record: Record) -> None:
    """The bound beside the gap of the fitted adapter and of random ones, with both heads."""
    setting = setting_of("digits", config, seed)
    z, y = (torch.cat([rows[i] for rows in setting.train]) for i in (0, 1))
    others = [ResidualAdapter(z.shape[1], seed=100 + i) for i in range(RANDOM_ADAPTERS)]
    for name, (method, ratio) in COVERED.items():
        sets = [extract_prototypes(*rows, method, ratio, seed=seed) for rows in setting.train]
        adapter, _ = train_global_adapter(
            sets, setting.head, steps=FIT_STEPS[config.size], seed=seed
        )
        found = [coverage(*rows, s) for rows, s in zip(setting.train, sets, strict=True)]
        for kind, head in _heads(setting.head).items():
            # The client that is covered worst stands for all.
            worst = max(found, key=lambda c: c.distance)
            keep(record, seed, f"{name}, {kind}", worst.record([adapter, *others], head))
        with torch.no_grad():
            risk = torch.nn.functional.cross_entropy(setting.head(adapter(z)), y)
        distance = sum(c.distance for c in found) / len(found)
        record.append(seed, 0, **{f"{name}: distance": distance, f"{name}: risk": float(risk)})


def coverage_certificates(config: PrototypesConfig, record: Record) -> list[Certificate]:
    """G5 of every upload and both heads."""
    return [
        c
        for name in COVERED
        for kind in ("normalised head", "head without norm")
        for c in judged(record, f"{name}, {kind}", coverage_bound())
    ]


def coverage_tables(config: PrototypesConfig, record: Record) -> dict[str, pd.DataFrame]:
    """Distance, risk of the fitted adapter, gap and bound."""
    rows = [
        {"upload": name, "coverage distance": last(record, f"{name}: distance"),
         "risk on the records": last(record, f"{name}: risk"),
         **{f"{what}, {kind}": float(record[f"{name}, {kind}: {column}"].max())
            for kind in ("normalised head", "head without norm")
            for what, column in (("largest gap", "risk gap"), ("bound", "coverage bound"))}}
        for name in COVERED
    ]  # fmt: skip
    frame = pd.DataFrame(rows).sort_values("coverage distance")
    title = "coverage distance beside the risk of the fitted adapter; the bound is valid and loose"
    return {title: frame.reset_index(drop=True)}


# -- G6: bytes -------------------------------------------------------------------------------------------

SENT = ("mean", "random", "cluster", "cluster_var", "gauss")


def run_communication(config: PrototypesConfig, seed: int, record: Record) -> None:
    """Bytes of real uploads beside the closed form."""
    setting = setting_of("digits", config, seed)
    for method in SENT:
        sets = [extract_prototypes(*rows, method, 0.1, seed=seed) for rows in setting.train]
        _, report = train_global_adapter(sets, setting.head, steps=1, seed=seed)
        keep(record, seed, method, report.record)


def communication_certificates(config: PrototypesConfig, record: Record) -> list[Certificate]:
    """G6 of every method."""
    return [c for method in SENT for c in judged(record, method, communication())]


CASES: Sequence[tuple[str, list[int], int, str, int]] = (
    ("DomainNet-50, CLIP ViT-B-32, means of 6 clients", [50] * 6, 512, "mean", 50),
    ("DomainNet-50, cluster_var .1 of 6 clients with 100 records a class", [500] * 6, 512,
     "cluster_var", 50),
    ("WordNet views, means of 4 clients", [15] * 4, 384, "mean", 15),
    ("WordNet views, cluster_var .1 of 4 clients", [58] * 4, 384, "cluster_var", 15),
    ("sentiment4, means of 4 clients", [3] * 4, 384, "mean", 3),
)  # fmt: skip


def communication_tables(config: PrototypesConfig, record: Record) -> dict[str, pd.DataFrame]:
    """What was sent, and the closed form of known settings with the rounds of FedAvg that cost as much."""
    sent = [
        {"method": method, "bytes up": last(record, f"{method}: bytes up"),
         "closed form": last(record, f"{method}: promised bytes up")}
        for method in SENT
    ]  # fmt: skip
    rows = []
    for name, clients, d, method, classes in CASES:
        cost = comm_cost(clients, d, method, classes)
        rows.append(
            {"setting": name, "MB up": cost.up / 1e6, "MB down": cost.down / 1e6,
             "up and down, MiB": (cost.up + cost.down) / 2**20,
             "one round of FedAvg, MB": cost.fedavg_round / 1e6,
             "as many rounds of FedAvg": cost.break_even}
        )  # fmt: skip
    return {"sent here": pd.DataFrame(sent), "in closed form": pd.DataFrame(rows)}
