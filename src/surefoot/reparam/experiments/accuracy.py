"""Does it help? Four arms, equally tuned, by depth and by how the data is cut (parts S3 and S4)."""

from __future__ import annotations

import functools
import time
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from surefoot.federated.partition import lda_partition
from surefoot.federated.reference import federate
from surefoot.record import Record
from surefoot.reparam.models import repopt_vgg
from surefoot.reparam.scales import Scales
from surefoot.reparam.search import hyper_search, scales_of
from surefoot.reparam.strategy import load_images
from surefoot.reparam.task import Arm, RepOptTask, effective_lr, evaluate_on

ARMS: tuple[Arm, ...] = ("fedrepopt", "csla", "rep", "inf")
DEPTHS = {5: (2, 2, 1), 9: (4, 4, 1), 17: (4, 10, 2), 25: (6, 16, 2)}
WIDTHS = (8, 16, 32)
TARGET = 0.7
SWEEP: dict[str, dict[str, Any]] = {
    "quick": {"depths": (5,), "alphas": (1e5,), "momenta": (0.0,), "lrs": (0.1, 0.5), "rounds": 3,
              "images": 300, "epochs": 1, "arms": ("fedrepopt", "inf"), "hs": 1},
    "standard": {"depths": (5, 17), "alphas": (0.1, 1e5), "momenta": (0.0,), "lrs": (0.1, 0.5),
                 "rounds": 6, "images": 800, "epochs": 2, "arms": ARMS, "hs": 5},
    "paper": {"depths": (5, 9, 17, 25), "alphas": (0.1, 1e5), "momenta": (0.0, 0.9),
              "lrs": (0.01, 0.05, 0.1, 0.2, 0.5, 1.0), "rounds": 20, "images": 4000, "epochs": 3,
              "arms": ARMS, "hs": 50},
}  # fmt: skip
CLIENTS = 10
COLUMNS = ("test accuracy", "lr", f"rounds to {TARGET:.0%}", "CPU seconds", "effective lr")
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


def _task(
    config: Any, seed: int, depth: int, alpha: float, momentum: float, arm: Arm, scales: Scales
) -> tuple[RepOptTask, tuple[Any, ...]]:
    s = SWEEP[config.size]
    data = images(config.data, str(config.images) if config.images else None, seed, s["images"])
    parts = lda_partition(data[1].numpy(), CLIENTS, alpha, seed)
    task = RepOptTask(
        lambda mode: build(depth, mode, seed), data[0], data[1], parts, None, scales, arm,
        epochs=s["epochs"], batch_size=16, momentum=momentum, weight_decay=4e-5,
    )  # fmt: skip
    return task, data


def _tuned(
    task: RepOptTask, data: tuple[Any, ...], lrs: tuple[float, ...], rounds: int, seed: int
) -> dict[str, float]:
    """The learning rate with the best validation accuracy at the end; its test accuracy, once."""
    best: dict[str, float] = {}
    winner: tuple[RepOptTask, Any] | None = None
    for lr in lrs:
        own = replace(task, lr=lr)
        curve: list[float] = []

        def after(
            r: int, state: Any, m: Any, own: RepOptTask = own, curve: list[float] = curve
        ) -> None:
            curve.append(evaluate_on(own, state, data[2], data[3])["accuracy"])

        began = time.thread_time()
        extra = own.extra(seed) if own.arm == "fedrepopt" else None
        try:
            state = federate(own, rounds, CLIENTS, seed=seed, extra=extra, after=after)
        except ArithmeticError:  # this learning rate diverged: it is no candidate
            continue
        if not best or curve[-1] > best["validation"]:
            reached = next((i + 1 for i, a in enumerate(curve) if a >= TARGET), rounds + 1)
            model, mults = own.model(seed)
            best = {
                "validation": curve[-1], "lr": lr, f"rounds to {TARGET:.0%}": reached,
                "CPU seconds": time.thread_time() - began,
                "effective lr": effective_lr(model, lr, mults),
            }  # fmt: skip
            winner = own, state
    if winner is not None:
        best["test accuracy"] = evaluate_on(*winner, data[4], data[5])["accuracy"]
    return best


def setting(depth: int, alpha: float, momentum: float) -> str:
    """How a setting is called in the record."""
    cut = "IID" if alpha > 1e3 else f"alpha {alpha:g}"
    return f"{depth} blocks, {cut}, momentum {momentum:g}"


def run(config: Any, seed: int, record: Record) -> None:
    """S3: every arm with its own best learning rate."""
    torch.set_num_threads(1)
    s = SWEEP[config.size]
    for depth in s["depths"]:
        scales = searched(depth, s["hs"])
        for alpha in s["alphas"]:
            for momentum in s["momenta"]:
                for arm in s["arms"]:
                    task, data = _task(config, seed, depth, alpha, momentum, arm, scales)
                    found = _tuned(task, data, s["lrs"], s["rounds"], seed)
                    name = setting(depth, alpha, momentum)
                    record.update(seed, 0, {f"{name}, {arm}: {k}": v for k, v in found.items()})


def tables(config: Any, record: Record) -> dict[str, pd.DataFrame]:
    """Means over seeds, and where FedRepOpt is ahead of the plain network, arm by arm."""
    s = SWEEP[config.size]
    rows = []
    for depth in s["depths"]:
        for alpha in s["alphas"]:
            for momentum in s["momenta"]:
                name = setting(depth, alpha, momentum)
                for arm in s["arms"]:
                    if f"{name}, {arm}: test accuracy" not in record:
                        continue
                    values = {k: record.constant(f"{name}, {arm}: {k}") for k in COLUMNS}
                    accuracy = values.pop("test accuracy")
                    rows.append(
                        {"setting": name, "arm": arm, "test accuracy": accuracy.mean(),
                         "+-": accuracy.std(ddof=1) if len(accuracy) > 1 else np.nan,
                         **{k: v.mean() for k, v in values.items()}}
                    )  # fmt: skip
    table = pd.DataFrame(rows)
    if not len(table):
        return {}
    wide = table.pivot(index="setting", columns="arm", values="test accuracy").reset_index()
    if {"fedrepopt", "inf"} <= set(wide):
        wide["fedrepopt - inf, points"] = 100 * (wide["fedrepopt"] - wide["inf"])
    return {"four arms, each at its own best learning rate": table, "who is ahead": wide}


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
    """S4: does the hyper-search matter?"""
    torch.set_num_threads(1)
    s = SWEEP[config.size]
    depth = s["depths"][-1]
    for name, scales in origins(depth, s["hs"], seed).items():
        task, data = _task(config, seed, depth, 1e5, 0.0, "fedrepopt", scales)
        found = _tuned(task, data, s["lrs"], s["rounds"], seed)
        record.update(seed, 0, {f"{name}: {k}": v for k, v in found.items()})
    moved, start = searched(depth, s["hs"]).arrays(), scales_of(build(depth, "csla", 0)).arrays()
    worst = max(float((moved[k] - start[k]).abs().max() / start[k].abs().max()) for k in start)
    record.update(seed, 0, {"largest relative move of a scale": worst})


def origin_tables(config: Any, record: Record) -> dict[str, pd.DataFrame]:
    """Accuracy by the origin of the scales."""
    rows = [
        {"scales": name, "test accuracy": record.constant(f"{name}: test accuracy").mean(),
         "lr": record.constant(f"{name}: lr").mean()}
        for name in ORIGINS if f"{name}: test accuracy" in record
    ]  # fmt: skip
    moved = record.constant("largest relative move of a scale").max()
    return {
        "where the scales come from": pd.DataFrame(rows),
        "how far the search moved them": pd.DataFrame([{"largest relative move": moved}]),
    }
