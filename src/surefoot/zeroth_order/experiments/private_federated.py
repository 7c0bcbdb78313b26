"""Private, federated, low-rank, forward-only in one run (part private-federated).

One clipped and noised number a round leaves a site, or the noise is the server's; beside it DP-LOZO on the
pooled data and federated averaging without privacy. In process: what would travel is packed and counted.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from surefoot._problems.arms import keep
from surefoot._problems.tuning import EqualTuning
from surefoot.certificate import Certificate
from surefoot.record import Record
from surefoot.zeroth_order.experiments import private_arms as arms
from surefoot.zeroth_order.experiments.private import row_of
from surefoot.zeroth_order.experiments.private_arms import TEST, Candidate, Setting, Trained
from surefoot.zeroth_order.experiments.private_sites import (
    ALPHA,
    BYTES,
    SITES,
    SiteProblem,
    averaged,
    count_wire,
    packed,
    problem_of,
)
from surefoot.zeroth_order.experiments.private_task import Task, digits, task_of
from surefoot.zeroth_order.federated import Agreement, Trust, log_of
from surefoot.zeroth_order.federated_guarantee import WIRE
from surefoot.zeroth_order.federated_run import beside, federate_scalars

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

POOLED, SERVER = "pooled DP-LOZO", "sites, noise of the server"
EACH, AVERAGED = "sites, each its own noise", "FedAvg, no privacy"
PLAIN = "sites, no privacy"
PRIVATE = (POOLED, SERVER, EACH)
EQUAL_ROUNDS = {"quick": 10, "standard": 40, "paper": 40}
ROUNDS = {"quick": 20, "standard": 60, "paper": 200}
# Of LoRA, rank 8, on query and value of MiniLM's six layers, one way: two factors of 384 x 8 each.
LORA = {f"{m}{i}.{f}": (8, 384) for i in range(6) for m in "qv" for f in "AB"}
SETTINGS = {
    "quick": Setting(
        5, 300, 0, {1: 13.02}, {}, dp_sgd=(), plain=(),
        private=[{"clip": 4.0, "lr": lr} for lr in (0.03, 0.1)],
        sgd=[{"lr": lr} for lr in (0.1, 0.3)],
    ),
    "standard": Setting(
        32, 400, 0, {1: 2.514}, {}, dp_sgd=(), plain=(),
        private=[{"clip": 24.0, "lr": lr} for lr in (3e-4, 1e-3)],
        sgd=[{"lr": lr} for lr in (0.01, 0.03)],
    ),
    "paper": Setting(
        32, 3000, 0, {1: 6.455}, {}, dp_sgd=(), plain=(),
        private=[{"clip": 24.0, "lr": lr} for lr in (3e-4, 1e-3)],
        sgd=[{"lr": lr} for lr in (0.01, 0.03)],
    ),
}  # fmt: skip


def run(config: Any, seed: int, record: Record) -> None:
    """The private arms at one epsilon, their peer, and the equality of a federation with pooled data."""
    task, tuning = task_of(config), EqualTuning("higher")
    setting, problem = SETTINGS[config.size], problem_of(task, seed)
    (sigma,) = setting.noise.values()
    each = functools.partial(arms.compete, task, record, seed, tuning)
    each(POOLED, setting.private, functools.partial(arms.lozo, task, setting, seed, sigma=sigma))
    replay = functools.partial(replayed, problem, seed)
    trusts: tuple[tuple[str, Trust], ...] = ((SERVER, "server"), (EACH, "none"))
    for arm, trust in trusts:
        each(
            arm, setting.private,
            functools.partial(federate, problem, setting, seed, sigma=sigma, trust=trust), replay,
        )  # fmt: skip
    rounds = ROUNDS[config.size]
    each(AVERAGED, setting.sgd, functools.partial(averaged, problem, rounds, seed))
    equal = without_privacy(digits(), EQUAL_ROUNDS[config.size], seed)
    keep(record, seed, PLAIN, equal.record)


def federate(
    problem: SiteProblem,
    setting: Setting,
    seed: int,
    given: Candidate,
    *,
    sigma: float,
    trust: Trust,
) -> Trained:
    """Scalars of the sites, private."""
    privacy = arms.mechanism(problem.task, setting, sigma, given)
    agreed = Agreement(arms.directions(given["lr"], seed), privacy, trust)
    result = federate_scalars(problem, setting.steps, SITES, agreed, seed=seed)
    model, _ = log_of(problem, result.scalars, agreed)
    count_wire(result.record, seed, result.scalars)
    return Trained(model, result.record, steps=setting.steps, ran=(result, agreed))


def replayed(problem: SiteProblem, seed: int, made: Trained) -> None:
    """Hold the weights of a site against the replay of the log (R)."""
    result, agreed = made.ran
    beside(result, problem, agreed, SITES, seed=seed)


def without_privacy(task: Task, rounds: int, seed: int) -> Trained:
    """All digits of every site in every round, held against the pooled data and the log (F and R)."""
    problem = problem_of(task, seed)
    lr = SETTINGS["quick"].private[0]["lr"]
    agreed = Agreement(arms.directions(lr, seed))
    result = federate_scalars(problem, rounds, SITES, agreed, seed=seed)
    beside(result, problem, agreed, SITES, seed=seed)
    count_wire(result.record, seed, result.scalars)
    return Trained(log_of(problem, result.scalars, agreed)[0], result.record, steps=rounds)


def certificates(config: Any, record: Record) -> list[Certificate]:
    """The one list of each run of scalars."""
    return arms.promised(record, [*PRIVATE, PLAIN])


def bytes_of(record: Record, arm: str) -> np.ndarray:
    """Bytes of every round, both ways and all sites together: (seeds, rounds); 0 if pooled."""
    for column in (WIRE, BYTES):
        if f"{arm}: {column}" in record:
            found: np.ndarray = record.curves(f"{arm}: {column}").values
            return found
    return np.zeros((1, 1))


def lora_bytes() -> int:
    """What the factors of LoRA would weigh in a round, both ways and all sites together: by the format."""
    one = sum(packed(np.zeros(shape, np.float32)) for shape in LORA.values())
    return 2 * SITES * one


def tables(config: Any, record: Record) -> dict[str, pd.DataFrame]:
    """Accuracy, epsilon, rounds and bytes, and what the bars ask."""
    rows = []
    for arm in (*PRIVATE, AVERAGED):
        row = row_of(record, arm, POOLED)
        row["rounds"] = row.pop("steps")
        sent = bytes_of(record, arm)
        row["bytes of the last round"] = float(sent[:, -1].mean())
        row["bytes in all"] = float(sent.sum(axis=1).mean())
        rows.append(row)
    seeds = len(record.constant(f"{POOLED}, {TEST}"))
    title = f"{SITES} sites, labels by Dirichlet {ALPHA:g}, delta {arms.DELTA:g}, {seeds} seeds"
    return {title: pd.DataFrame(rows), "beside the bars": pd.DataFrame(bars(record))}


def bars(record: Record) -> list[dict[str, Any]]:
    """What is asked of the method, and whether it was reached."""
    ours = float(bytes_of(record, SERVER)[:, -1].mean())
    peer = float(bytes_of(record, AVERAGED)[:, -1].mean())
    found = []
    for what, theirs in (
        ("LoRA of rank 8 on query and value of MiniLM (by format, not trained here)", lora_bytes()),
        ("what FedAvg sends here", peer),
    ):
        ratio = ours / theirs
        found.append({"what": f"bytes of a round over {what}", "bar": "<= 0.0005", "measured": ratio,
                      "reached": ratio <= 0.0005})  # fmt: skip
    for arm, other in ((SERVER, POOLED), (EACH, POOLED), (SERVER, AVERAGED)):
        gap = record.constant(f"{arm}, {TEST}") - record.constant(f"{other}, {TEST}")
        found.append({"what": f"accuracy, {arm}, minus {other}", "bar": "none", "measured": float(gap.mean()),
                      "reached": None})  # fmt: skip
    return found


def figures(config: Any, record: Record) -> dict[str, Figure]:
    """Accuracy against all bytes."""
    import plotly.graph_objects as go

    figure = go.Figure()
    for arm, symbol in zip((SERVER, EACH, AVERAGED), ("circle", "square", "diamond"), strict=True):
        figure.add_scatter(
            x=[float(bytes_of(record, arm).sum(axis=1).mean())],
            y=[float(record.constant(f"{arm}, {TEST}").mean())],
            name=arm, mode="markers", marker={"symbol": symbol, "size": 10},
        )  # fmt: skip
    pooled = float(record.constant(f"{POOLED}, {TEST}").mean())
    figure.add_hline(y=pooled, line={"dash": "dot"}, annotation_text=POOLED)
    figure.update_layout(
        xaxis_title="bytes of all rounds, both ways, all sites (bytes)", xaxis_type="log",
        yaxis_title="test accuracy (share of the test split)",
    )  # fmt: skip
    return {"accuracy against bytes": figure}
