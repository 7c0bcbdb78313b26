"""Does it help? Four equally tuned arms, by depth and by how the data is cut (parts accuracy, origins)."""

from __future__ import annotations

import functools
import itertools
import math
import time
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from surefoot._problems.tuning import EqualTuning, remarks
from surefoot.federated.partition import lda_partition
from surefoot.federated.reference import federate
from surefoot.record import Record
from surefoot.reparam._task.configured import load_images
from surefoot.reparam.models import repopt_vgg
from surefoot.reparam.scales import Scales
from surefoot.reparam.search import hyper_search, scales_of
from surefoot.reparam.task import Arm, RepOptTask, effective_lr, evaluate_on

ARMS: tuple[Arm, ...] = ("fedrepopt", "csla", "rep", "inf")
DEPTHS = {5: (2, 2, 1), 9: (4, 4, 1), 17: (4, 10, 2), 25: (6, 16, 2)}
WIDTHS = (8, 16, 32)
TARGET = 0.7
CUTS = (0.1, 1e5)
# settings: (depth, alpha of the cut, momentum)
SWEEP: dict[str, dict[str, Any]] = {
    "quick": {"settings": ((5, 1e5, 0.0),), "lrs": (0.1, 0.5), "rounds": 3, "images": 300,
              "epochs": 1, "arms": ("fedrepopt", "inf"), "hs": 1},
    "standard": {"settings": tuple(itertools.product((5, 9, 17), CUTS, (0.0,))),
                 "lrs": (0.05, 0.1, 0.2, 0.5, 1.0), "rounds": 8, "images": 1000, "epochs": 2,
                 "arms": ARMS, "hs": 5},
    "paper": {"settings": tuple(itertools.product((5, 9, 17, 25), CUTS, (0.0, 0.9))),
              "lrs": (0.01, 0.05, 0.1, 0.2, 0.5, 1.0), "rounds": 20, "images": 4000, "epochs": 3,
              "arms": ARMS, "hs": 50},
}  # fmt: skip
CLIENTS = 10
REACHED = f"rounds to {TARGET:.0%}"
SECONDS = f"CPU seconds to {TARGET:.0%}"
CHANCE, NOT_REACHED, AT_CHANCE = "accuracy of chance", "not reached", "at chance"
COLUMNS = (
    "test accuracy",
    "lr",
    REACHED,
    SECONDS,
    "CPU seconds",
    "effective lr",
)
ORIGINS = ("hyper-search", "formula", "ones", "random")


def build(depth: int, mode: Any, seed: int) -> nn.Module:
    """A narrow network on 14 x 14 images; `depth` counts the blocks after the stem."""
    return repopt_vgg(
        DEPTHS[depth], WIDTHS, in_channels=1, mode=mode, strides=(1, 1, 2, 2), seed=seed
    )


@functools.lru_cache(maxsize=4)
def images(name: str, path: str | None, seed: int, count: int) -> tuple[Any, ...]:
    """Train, validation and test, halved to 14 x 14; the validation images are taken out of training."""
    x, y, (x_test, y_test) = load_images(name, path, seed, count + count // 4)
    shrink = functools.partial(nn.functional.avg_pool2d, kernel_size=2)
    return shrink(x[:count]), y[:count], shrink(x[count:]), y[count:], shrink(x_test), y_test


@functools.lru_cache(maxsize=8)
def searched(depth: int, epochs: int) -> Scales:
    """Hyper-search on digits, brought to 14 x 14: never the data of the federation."""
    x, y, _ = load_images("digits")
    x = nn.functional.interpolate(x, size=(14, 14), mode="bilinear")
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    loader = [(x[i], y[i]) for i in torch.split(order, 64)]
    return hyper_search(lambda: build(depth, "hs", 0), loader, epochs, 0.1)


@functools.cache
def trained(
    config: Any, seed: int, where: tuple[int, float, float], arm: Arm, origin: str, lr: float
) -> dict[str, float]:
    """One federation to its end; {} where it diverged. `where` is (depth, alpha, momentum)."""
    depth, alpha, momentum = where
    s = SWEEP[config.size]
    data = images(config.data, str(config.images) if config.images else None, seed, s["images"])
    task = RepOptTask(
        lambda mode: build(depth, mode, seed), data[0], data[1],
        lda_partition(data[1].numpy(), CLIENTS, alpha, seed), None,
        origins(depth, s["hs"], seed)[origin], arm, epochs=s["epochs"], batch_size=16, lr=lr,
        momentum=momentum, weight_decay=4e-5,
    )  # fmt: skip
    curve: list[float] = []
    seconds = [0.0]
    began = time.thread_time()

    def after(server_round: int, state: Any, metrics: Any) -> None:
        nonlocal began
        seconds.append(seconds[-1] + time.thread_time() - began)
        curve.append(evaluate_on(task, state, data[2], data[3])["accuracy"])
        began = time.thread_time()

    extra = task.extra(seed) if arm == "fedrepopt" else None
    try:
        state = federate(task, s["rounds"], CLIENTS, seed=seed, extra=extra, after=after)
    except ArithmeticError:  # it diverged: this learning rate is no candidate
        return {}
    reached = next((i + 1 for i, a in enumerate(curve) if a >= TARGET), None)
    model, mults = task.model(seed)
    found = {
        "validation": curve[-1], "lr": lr,
        "CPU seconds": seconds[-1], "effective lr": effective_lr(model, lr, mults),
        "test accuracy": evaluate_on(task, state, data[4], data[5])["accuracy"],
        CHANCE: chance(data[5]),
    }  # fmt: skip
    # Of what was not reached there is no round.
    return found if reached is None else found | {REACHED: reached, SECONDS: seconds[reached]}


def chance(labels: torch.Tensor) -> float:
    """The accuracy that guessing the commonest label passes in 1 of 1000 draws of as many images."""
    share = float(labels.bincount().max()) / len(labels)
    return share + 3.09 * math.sqrt(share * (1 - share) / len(labels))


def tune(
    record: Record, name: str, tuning: EqualTuning, config: Any, seed: int,
    where: tuple[int, float, float], arm: Arm, origin: str = "hyper-search",
) -> None:  # fmt: skip
    """Record a seed at the learning rate whose validation accuracy at the end was best on the first seed.

    Every arm has the same candidates and the same rule. The other seeds see data, cut and weights of
    their own, and no tuning.
    """

    def attempt(lr: float) -> tuple[float, None]:
        tried = trained(config, config.seed, where, arm, origin, lr)
        return tried.get("validation", math.nan), None

    chosen = tuning.choose(name, SWEEP[config.size]["lrs"], attempt)
    chosen.note(record, name, seed)
    if chosen.edge == "diverged":
        return
    found = trained(config, seed, where, arm, origin, chosen.value)
    seen = {f"validation at lr {lr:g}": v for lr, v in chosen.scores.items() if math.isfinite(v)}
    record.update(seed, 0, {f"{name}: {k}": v for k, v in (found | seen).items()})


def setting(depth: int, alpha: float, momentum: float) -> str:
    """How a setting is called in the record."""
    cut = "IID" if alpha > 1e3 else f"alpha {alpha:g}"
    return f"{depth} blocks, {cut}, momentum {momentum:g}"


def run(config: Any, seed: int, record: Record) -> None:
    """Every arm at its own best learning rate."""
    torch.set_num_threads(1)
    s = SWEEP[config.size]
    tuning = EqualTuning("higher")
    for where in s["settings"]:
        for arm in s["arms"]:
            tune(record, f"{setting(*where)}, {arm}", tuning, config, seed, where, arm)


def tables(config: Any, record: Record) -> dict[str, pd.DataFrame]:
    """Means over seeds, where FedRepOpt is ahead of the plain network, and what the tuning saw."""
    s = SWEEP[config.size]
    rows, tuning = [], []
    for where in s["settings"]:
        for arm in s["arms"]:
            name = f"{setting(*where)}, {arm}"
            if f"{name}: test accuracy" not in record:
                continue
            rows.append({"setting": setting(*where), "arm": arm, **_row(record, name, COLUMNS),
                         "tuning": remarks(record, name)})  # fmt: skip
            seen = {lr: f"{name}: validation at lr {lr:g}" for lr in s["lrs"]}
            tuning.append(
                {"setting": setting(*where), "arm": arm}
                | {f"{lr:g}": record.constant(q)[0] for lr, q in seen.items() if q in record}
            )
    table = pd.DataFrame(rows)
    if not len(table):
        return {}
    wide = table.pivot(index="setting", columns="arm", values="test accuracy")
    wide = wide.reindex(list(dict.fromkeys(table["setting"]))).reset_index()
    if {"fedrepopt", "inf"} <= set(wide):
        points = 100 * (wide["fedrepopt"] - wide["inf"])
        # Two arms that have learnt nothing are not ahead of each other.
        idle = [
            all(_at_chance(record, f"{w}, {arm}") for arm in ("fedrepopt", "inf"))
            for w in wide["setting"]
        ]
        wide["fedrepopt - inf, points"] = points.astype(object).mask(pd.Series(idle), AT_CHANCE)
    if {"fedrepopt", "csla"} <= set(wide):
        wide["noise, points"] = [100 * _noise(pd.DataFrame(tuning), w) for w in wide["setting"]]
    return {
        "four arms, each at its own best learning rate": table,
        "who is ahead": wide,
        "validation accuracy by learning rate, first seed": pd.DataFrame(tuning),
    }


def _row(record: Record, name: str, columns: Iterable[str]) -> dict[str, Any]:
    """Means over the seeds; of rounds and seconds to the target only where it was reached."""
    accuracy = record.constant(f"{name}: test accuracy")
    row: dict[str, Any] = {"test accuracy": accuracy.mean()}
    row["accuracy +-"] = accuracy.std(ddof=1) if len(accuracy) > 1 else np.nan
    row["seeds"] = len(accuracy)
    for column in columns:
        quantity = f"{name}: {column}"
        if column == "test accuracy":
            continue
        if column not in (REACHED, SECONDS):
            row[column] = record.constant(quantity).mean()
        elif quantity not in record:
            row[column] = NOT_REACHED
        else:
            found = record.constant(quantity)
            some = f" in {len(found)} of {len(accuracy)}" if len(found) < len(accuracy) else ""
            row[column] = f"{found.mean():.3g}{some}"
    return row


def _at_chance(record: Record, name: str) -> bool:
    """Whether an arm's mean test accuracy is one that guessing has too."""
    accuracy, guess = (f"{name}: {k}" for k in ("test accuracy", CHANCE))
    if accuracy not in record or guess not in record:
        return False
    return bool(record.constant(accuracy).mean() <= record.constant(guess).mean())


def _noise(tuning: pd.DataFrame, where: str) -> float:
    """Mean |FedRepOpt - CSLA| at equal learning rates: 0 in exact arithmetic, chance in float32."""
    rows = tuning[tuning["setting"] == where].set_index("arm").drop(columns="setting")
    gaps = np.abs(np.diff(rows.reindex(["fedrepopt", "csla"]).to_numpy(dtype=float), axis=0))
    both = gaps[np.isfinite(gaps)]
    return float(both.mean()) if both.size else np.nan


def origins(depth: int, epochs: int, seed: int) -> dict[str, Scales]:
    """Scales (a) of the hyper-search, (b) by the formula, (c) all ones, (d) |N(0, 1)|."""
    formula = scales_of(build(depth, "csla", 0))
    g = torch.Generator().manual_seed(seed)

    def like(fill: Any) -> Scales:
        return Scales({p: {b: fill(v) for b, v in s.items()} for p, s in formula.items()})

    return {
        "hyper-search": searched(depth, epochs),
        "formula": formula,
        "ones": like(torch.ones_like),
        "random": like(lambda v: torch.randn(v.shape, generator=g).abs()),
    }


def run_origins(config: Any, seed: int, record: Record) -> None:
    """Does the hyper-search matter?"""
    torch.set_num_threads(1)
    s = SWEEP[config.size]
    depth = s["settings"][-1][0]
    tuning = EqualTuning("higher")
    for name in ORIGINS:
        tune(record, name, tuning, config, seed, (depth, 1e5, 0.0), "fedrepopt", name)
    moved, start = searched(depth, s["hs"]).arrays(), scales_of(build(depth, "csla", 0)).arrays()
    worst = max(float((moved[k] - start[k]).abs().max() / start[k].abs().max()) for k in start)
    record.update(seed, 0, {"largest relative move of a scale": worst})


def origin_tables(config: Any, record: Record) -> dict[str, pd.DataFrame]:
    """Accuracy by the origin of the scales."""
    rows = []
    for name in ORIGINS:
        if f"{name}: test accuracy" not in record:
            continue
        rows.append({"scales": name, **_row(record, name, ("lr", REACHED))})
    moved = record.constant("largest relative move of a scale").max()
    return {
        "where the scales come from": pd.DataFrame(rows),
        "how far the search moved them": pd.DataFrame([{"largest relative move": moved}]),
    }
