"""Federated softmax regression on digits, two labels a client: exact averages beside the others.

Five clients, L2 0.05, five full-gradient steps a round at gamma = 1 / (2 L K) with L of the worst client.
FedAvg-LoRA, which trains both factors, gets ten times that step: its factors start small.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from surefoot._problems.real import real
from surefoot._problems.softmax import softmax, softmax_on
from surefoot.guarantee import Guarantee
from surefoot.lora.guarantee import Constants, add_run, stationarity
from surefoot.lora.reference import FedMethod, FedResult, fed_reference
from surefoot.record import Record

M, N, CLIENTS, LABELS, L2 = 10, 64, 5, 2, 0.05
LOCAL_STEPS, EVERY = 5, 10
# Rounds at rank 4; rank 16 gets a quarter of them, so that r T is the same.
ROUNDS = {"quick": 40, "standard": 1500, "paper": 1500}
FAST, LORA_STEP = 4, 10
ARMS: tuple[tuple[str, FedMethod, int | None], ...] = (
    ("FedAvg", "fedavg", None),
    ("Fed-RAC-LoRA, r = 4", "fed_rac", 4),
    ("Fed-RAC-LoRA, r = 16", "fed_rac", 16),
    ("FedAvg-LoRA, r = 4", "fedavg_lora", 4),
    ("FedAvg-LoRA, r = 16", "fedavg_lora", 16),
    ("FFA-LoRA, r = 4", "ffa_lora", 4),
)
BOUNDED = tuple(arm for arm in ARMS if arm[1] == "fed_rac")
Matrix = Float[Tensor, "10 64"]


@dataclass(frozen=True)
class Federation:
    """A loss a client, their weights, and the constants of the mean loss f; W0 = 0."""

    losses: tuple[Callable[[Matrix], Tensor], ...]
    weights: tuple[float, ...]
    L: float
    """Of the worst client."""
    f_star: float

    def f(self, W: Matrix) -> Tensor:
        """The weighted mean of the clients' losses."""
        return torch.stack(
            [w * loss(W) for w, loss in zip(self.weights, self.losses, strict=True)]
        ).sum()

    def gap(self, W: Matrix) -> float:
        """f(W) - f*."""
        return float(self.f(W)) - self.f_star

    def gradients(self, W: Matrix) -> tuple[float, float]:
        """|grad f|^2 and zeta^2, the spread of the clients' gradients around it."""
        V = W.detach().requires_grad_()
        own = torch.stack([torch.autograd.grad(loss(V), [V])[0] for loss in self.losses])
        w = torch.tensor(self.weights, dtype=own.dtype)[:, None, None]
        mean = (w * own).sum(0)
        return float(mean.square().sum()), float((w * (own - mean).square()).sum())


@cache
def two_labels() -> Federation:
    """Digits in float64, clients of labels {0, 1}, {2, 3}, ...: their mean is the loss of all digits."""
    x, y = real("digits")
    own = [y // LABELS == c for c in range(CLIENTS)]
    clients = [softmax(x[rows], y[rows], L2, classes=M, solve=False) for rows in own]
    weights = tuple(int(rows.sum()) / len(x) for rows in own)
    return Federation(
        tuple(c.f for c in clients), weights, max(c.L for c in clients),
        softmax_on("digits", L2).f_star,
    )  # fmt: skip


def rounds_of(rank: int | None, size: str) -> int:
    """Equal r T / n for all ranks; FedAvg is rank 64."""
    return max(1, ROUNDS[size] * FAST // (rank or N))


def step_of(found: Federation, method: FedMethod) -> float:
    """1 / (2 L K), times ten where both factors train."""
    return (LORA_STEP if method == "fedavg_lora" else 1) / (2 * found.L * LOCAL_STEPS)


def run(config: Any, seed: int, record: Record) -> None:
    """Every arm; gradients and their spread for the arm that a theorem covers."""
    found = two_labels()
    start = torch.zeros(M, N, dtype=torch.float64)
    for name, method, rank in ARMS:
        rounds = rounds_of(rank, config.size)
        out = fed_reference(
            found.losses, start, method, rank, rounds, LOCAL_STEPS, gamma=step_of(found, method),
            weights=found.weights, seed=seed, keep_path=True,
        )  # fmt: skip
        record.append(
            seed, 0,
            **{
                f"{name}, relative gap": found.gap(out.weights) / found.gap(start),
                f"{name}, aggregation error": max(out.aggregation_errors),
                f"{name}, numbers up": float(out.uplink_numbers),
            },
        )  # fmt: skip
        if method == "fed_rac":
            path_columns(record, seed, name, found, out)


def path_columns(record: Record, seed: int, name: str, found: Federation, out: FedResult) -> None:
    """What G6 speaks of: W at the start of every round, and how the federation ran.

    Parameters
    ----------
    record, seed
        Where to.
    name
        The arm.
    found
        The clients.
    out
        Run with `keep_path`.
    """
    path = out.path[:-1]
    squares, spreads = zip(*(found.gradients(W) for W in path), strict=True)
    steps = range(EVERY, len(path) + 1, EVERY)
    running = np.cumsum(squares) / np.arange(1, len(path) + 1)
    add_run(record, seed, out.record, of=name)
    record.extend(seed, f"{name}: mean_grad_norm2", [running[t - 1] for t in steps], steps)
    record.append(seed, 0, **{f"{name}: gap": found.gap(path[0]), f"{name}: zeta2": max(spreads)})


def guarantees(config: Any) -> Iterable[Guarantee]:
    """G6 for both ranks."""
    return [stationarity(constants(), "fed", of=name) for name, _, _ in BOUNDED]


def constants() -> Constants:
    """Full gradients: the only noise is that clients differ, by zeta^2 at most on the paths."""
    how = "exact: full gradients at the start of every round"
    return Constants(two_labels().L, sigma2=0.0, zeta2=None, how_sigma2=how)


def tables(config: Any, record: Record) -> dict[str, pd.DataFrame]:
    """The gap after equal r T / n, what averaging lost, and what a client sends."""
    rows = []
    for name, _, rank in ARMS:
        gaps = record.constant(f"{name}, relative gap")
        rows.append(
            {
                "method": name,
                "rounds": rounds_of(rank, config.size),
                "relative gap": float(gaps.mean()),
                "worst seed": float(gaps.max()),
                "aggregation error": float(record.constant(f"{name}, aggregation error").max()),
                "numbers a client sends a round": int(record.constant(f"{name}, numbers up")[0]),
            }
        )
    return {"federated digits, two labels a client": pd.DataFrame(rows)}
